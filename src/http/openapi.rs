//! The contract of the public interface, as an OpenAPI 3.1 text.
//!
//! Written here once, in the order of the design's table; a test holds the router to it.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::{api::ProblemType, model::absence::AwayReason};

/// Endpoint of the contract.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Whether a session is needed.
    session: bool,
    /// Names of query parameters, each with its schema and meaning.
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Option<&'static str>,
    /// Status, schema (empty for none), meaning.
    answers: &'static [(u16, &'static str, &'static str)],
    /// Types of problems, besides those that every endpoint of its sort has.
    problems: &'static [ProblemType],
}

/// Form of a place in a cursor: digits in their one spelling.
const NUMBER: &str = "(0|[1-9][0-9]*)";
const BOARD: &str = "[a-z0-9][a-z0-9-]{0,31}";

/// Problems of any endpoint.
const OF_ALL: &[ProblemType] = &[ProblemType::UnknownHost];
/// Problems of any endpoint with a session.
const OF_SESSIONS: &[ProblemType] = &[
    ProblemType::NoSession,
    ProblemType::OtherSession,
    ProblemType::UnknownSession,
    ProblemType::RateLimited,
    ProblemType::Overloaded,
    ProblemType::Unavailable,
];
/// Problems of any write.
const OF_WRITES: &[ProblemType] = &[
    ProblemType::ForeignOrigin,
    ProblemType::OutcomeUnknown,
    ProblemType::DeadLetter,
    ProblemType::Broken,
];
/// Problems of any endpoint with a body.
const OF_BODIES: &[ProblemType] = &[
    ProblemType::MalformedBody,
    ProblemType::BodyTimeout,
    ProblemType::BodyTooLarge,
    ProblemType::NotJson,
];

const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/api/v1/sessions",
        summary: "Open a session. With `cookie` the token comes as an HttpOnly cookie and not in the body.",
        session: false,
        query: &[],
        body: Some("OpenSession"),
        answers: &[(201, "SessionOpened", "The session is committed.")],
        problems: &[
            ProblemType::MalformedName,
            ProblemType::RateLimited,
            ProblemType::Overloaded,
            ProblemType::Unavailable,
        ],
    },
    Operation {
        method: "get",
        path: "/api/v1/session",
        summary: "Restore a session: who one is, boards, read marks, posts on their way.",
        session: true,
        query: &[],
        body: None,
        answers: &[(200, "SessionRestored", "All of it.")],
        problems: &[],
    },
    Operation {
        method: "delete",
        path: "/api/v1/session",
        summary: "Log out.",
        session: true,
        query: &[],
        body: None,
        answers: &[(204, "", "The session is closed on every master.")],
        problems: &[],
    },
    Operation {
        method: "post",
        path: "/api/v1/session/alive",
        summary: "The answer to `beat`, at most every 12 s: somebody is here.",
        session: true,
        query: &[],
        body: None,
        answers: &[(204, "", "Noted.")],
        problems: &[ProblemType::ForeignOrigin],
    },
    Operation {
        method: "get",
        path: "/api/v1/boards",
        summary: "All boards.",
        session: true,
        query: &[],
        body: None,
        answers: &[(200, "BoardList", "In the order of names.")],
        problems: &[],
    },
    Operation {
        method: "put",
        path: "/api/v1/boards/{board}",
        summary: "Create a board.",
        session: true,
        query: &[],
        body: None,
        answers: &[(201, "Board", "It is new."), (200, "Board", "It was there.")],
        problems: &[ProblemType::MalformedBoard, ProblemType::TooManyBoards],
    },
    Operation {
        method: "post",
        path: "/api/v1/boards/{board}/posts",
        summary: "Write a post. Sent again with the same id, through any master, it is still one post. After a 504 send it again or cancel it.",
        session: true,
        query: &[],
        body: Some("WritePost"),
        answers: &[
            (201, "Post", "It is in its board for good."),
            (200, "Post", "It was there already; treat it as 201."),
        ],
        problems: &[
            ProblemType::MalformedBoard,
            ProblemType::MalformedId,
            ProblemType::UnknownBoard,
            ProblemType::Cancelled,
            ProblemType::TextTooLong,
            ProblemType::TextRefused,
            ProblemType::IdConflict,
        ],
    },
    Operation {
        method: "get",
        path: "/api/v1/boards/{board}/posts",
        summary: "Read a board: the last posts, those after a place, or those before one; always ascending.",
        session: true,
        query: &[
            (
                "after",
                "integer",
                "Only posts after this place, from the lowest. Excludes `before`.",
            ),
            (
                "before",
                "integer",
                "Only posts before this place, the nearest ones. Excludes `after`.",
            ),
            ("limit", "integer", "At most so many: 50 unless told, 200 at most."),
            ("consistency", "string", "`strong`, or `weak`: answered by a worker's node database."),
        ],
        body: None,
        answers: &[(200, "PostList", "Ascending, without a hole.")],
        problems: &[
            ProblemType::MalformedBoard,
            ProblemType::MalformedQuery,
            ProblemType::UnknownBoard,
        ],
    },
    Operation {
        method: "get",
        path: "/api/v1/posts/{id}",
        summary: "What became of a post of one's own.",
        session: true,
        query: &[],
        body: None,
        answers: &[(200, "PostState", "Committed or cancelled, for good.")],
        problems: &[ProblemType::MalformedId, ProblemType::NotCommitted],
    },
    Operation {
        method: "delete",
        path: "/api/v1/posts/{id}",
        summary: "Cancel a post that has no outcome: it is committed already, or it never appears.",
        session: true,
        query: &[],
        body: None,
        answers: &[(200, "PostState", "Committed or cancelled, for good.")],
        problems: &[ProblemType::MalformedId],
    },
    Operation {
        method: "put",
        path: "/api/v1/boards/{board}/read-mark",
        summary: "Say up to where one has read. It only rises.",
        session: true,
        query: &[],
        body: Some("ReadMark"),
        answers: &[(204, "", "It is at least there.")],
        problems: &[ProblemType::MalformedBoard, ProblemType::AboveEnd, ProblemType::UnknownBoard],
    },
    Operation {
        method: "get",
        path: "/api/v1/users",
        summary: "Who is active in the whole system.",
        session: true,
        query: &[
            (
                "after",
                "string",
                "The people after this one: an id, or `next` of an answer, which holds though the person left.",
            ),
            ("limit", "count", "The first so many, 1000 at most. Left out: all."),
        ],
        body: None,
        answers: &[(200, "UserList", "By name, then id.")],
        problems: &[ProblemType::MalformedQuery],
    },
    Operation {
        method: "post",
        path: "/api/v1/handover",
        summary: "A single-use ticket that moves this session to a master on another host. Good for 5 min.",
        session: true,
        query: &[],
        body: None,
        answers: &[(201, "Ticket", "Keep it secret.")],
        problems: &[],
    },
    Operation {
        method: "post",
        path: "/api/v1/handover/redeem",
        summary: "Spend a ticket for a cookie.",
        session: false,
        query: &[],
        body: Some("Ticket"),
        answers: &[(201, "SessionOpened", "The cookie is set.")],
        problems: &[
            ProblemType::OtherSession,
            ProblemType::UnknownTicket,
            ProblemType::RateLimited,
            ProblemType::Overloaded,
            ProblemType::Unavailable,
        ],
    },
    Operation {
        method: "get",
        path: "/api/v1/stream",
        summary: "Server-sent events: hello, post, pending, presence, state, masters, reset, beat, bye. Answers 200 or 401, nothing else; what cannot be served is said in a `bye`.",
        session: true,
        query: &[
            (
                "boards",
                "string",
                "Names, separated by commas, 32 at most. Left out: those of the cursor, else the lobby.",
            ),
            (
                "cursor",
                "string",
                "`EPOCH;board:seq,..`. A board's place in Last-Event-ID wins over it.",
            ),
            ("user", "string", "As the header `Chatchat-User`, which `EventSource` cannot set."),
            (
                "presence",
                "string",
                "`lists`: each `presence` is the whole list. Left out: a window of the people first, then changes.",
            ),
        ],
        body: None,
        answers: &[(200, "Stream", "Open until a `bye` or the end of the connection.")],
        problems: &[ProblemType::NoSession, ProblemType::OtherSession, ProblemType::UnknownSession],
    },
    Operation {
        method: "get",
        path: "/api/v1/cluster",
        summary: "Names and states of masters and workers, and of the store.",
        session: true,
        query: &[],
        body: None,
        answers: &[(200, "Cluster", "As the master asked sees it.")],
        problems: &[],
    },
    Operation {
        method: "get",
        path: "/healthz",
        summary: "Whether the process lives. Every origin may ask.",
        session: false,
        query: &[],
        body: None,
        answers: &[(200, "", "`ok`.")],
        problems: &[],
    },
    Operation {
        method: "get",
        path: "/readyz",
        summary: "Whether to come here. Every origin may ask.",
        session: false,
        query: &[],
        body: None,
        answers: &[
            (200, "Readiness", "Come."),
            (503, "Readiness", "Starting, draining, or neither store nor worker is in reach."),
        ],
        problems: &[],
    },
    Operation {
        method: "get",
        path: "/api/v1/openapi.json",
        summary: "This text.",
        session: false,
        query: &[],
        body: None,
        answers: &[(200, "", "OpenAPI 3.1.")],
        problems: &[],
    },
];

/// Returns the whole text.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| serde_json::to_string_pretty(&document()).unwrap_or_default());
    &TEXT
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chatchat",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Bodies are JSON, errors application/problem+json with a stable `type`. 429 and 503 carry Retry-After and mean that the request did nothing. Times are milliseconds of the store's clock since the Unix epoch. Keys and query parameters that are not named here are ignored, in requests as in answers: a newer page may meet an older master, and the other way round.",
        },
        "servers": [{
            "url": "/",
            "description": "Any master; `hello` and the answers to sessions list them all.",
        }],
        // Unless an endpoint says that it needs one.
        "security": [],
        "paths": paths,
        "components": { "schemas": schemas(), "securitySchemes": security() },
    })
}

fn security() -> Value {
    json!({
        "bearer": { "type": "http", "scheme": "bearer" },
        "cookie": {
            "type": "apiKey", "in": "cookie", "name": "chatchat-CLUSTER",
            "description": "HttpOnly, SameSite=Strict; CLUSTER is the cluster's id in hex. Over https it is \
                            __Host-chatchat-CLUSTER, and Secure.",
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut value = json!({ "summary": operation.summary, "responses": answers(operation) });
    if operation.session {
        value["security"] = json!([{ "bearer": [] }, { "cookie": [] }]);
    }
    let mut parameters = Vec::new();
    for name in ["board", "id"] {
        if operation.path.contains(&format!("{{{name}}}")) {
            let schema = match name {
                "board" => json!({ "$ref": "#/components/schemas/BoardName" }),
                _ => json!({ "type": "string", "format": "uuid" }),
            };
            parameters
                .push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
    }
    for (name, kind, description) in operation.query {
        parameters.push(json!({
            "name": name, "in": "query", "description": description,
            "schema": query_schema(name, kind),
        }));
    }
    if operation.session || operation.path.ends_with("/redeem") {
        parameters.push(json!({
            "name": "Chatchat-User", "in": "header", "schema": { "type": "string" },
            "description": "Id of the user that the client takes itself for; another's session is refused.",
        }));
    }
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.body {
        value["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": { "$ref": reference(schema) } } },
        });
    }
    value
}

/// Returns what the check of a query parameter lets through.
fn query_schema(name: &str, kind: &str) -> Value {
    match name {
        _ if kind == "count" => json!({ "type": "integer", "minimum": 1 }),
        "limit" => json!({ "type": kind, "minimum": 1, "default": 50 }),
        "consistency" => json!({ "enum": ["strong", "weak"], "default": "strong" }),
        "cursor" => json!({ "type": kind, "pattern": cursor_pattern() }),
        _ if kind == "integer" => json!({ "type": kind, "minimum": 0 }),
        _ => json!({ "type": kind }),
    }
}

fn cursor_pattern() -> String {
    let place = format!("{BOARD}:{NUMBER}");
    format!("^({NUMBER};({place}(,{place}){{0,31}})?)?$")
}

fn reference(schema: &str) -> String {
    format!("#/components/schemas/{schema}")
}

fn answers(operation: &Operation) -> Value {
    let mut answers = Map::new();
    for (status, schema, description) in operation.answers {
        let mut answer = json!({ "description": description });
        let mime = if *schema == "Stream" { "text/event-stream" } else { "application/json" };
        if !schema.is_empty() {
            answer["content"] = json!({ mime: { "schema": { "$ref": reference(schema) } } });
        }
        answers.insert(status.to_string(), answer);
    }
    let stream = operation.path.ends_with("/stream");
    let writes = operation.method != "get";
    let mut types: Vec<ProblemType> = [operation.problems, OF_ALL].concat();
    if operation.session && !stream {
        types.extend(OF_SESSIONS);
    }
    if writes && !operation.path.ends_with("/alive") {
        types.extend(OF_WRITES);
    }
    if operation.body.is_some() {
        types.extend(OF_BODIES);
    }
    for of in ProblemType::ALL {
        if !types.contains(of) {
            continue;
        }
        let answer = answers.entry(of.status().to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "content": { "application/problem+json": { "schema": { "$ref": reference("Problem") } } },
            })
        });
        let known = answer["description"].as_str().unwrap_or_default();
        let comma = if known.is_empty() { "" } else { ", " };
        answer["description"] = format!("{known}{comma}`{}`", of.slug()).into();
        if matches!(of.status(), 429 | 503) {
            answer["headers"] = json!({ "Retry-After": { "schema": { "type": "integer" } } });
        }
    }
    answers.into()
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    let mut add = |name: &str, schema: Value| schemas.insert(name.to_owned(), schema);
    let string = || json!({ "type": "string" });
    let integer = || json!({ "type": "integer", "minimum": 0 });
    let time =
        || json!({ "type": "integer", "description": "ms since the Unix epoch, store time" });
    let uuid = || json!({ "type": "string", "format": "uuid" });
    let list = |of: &str| json!({ "type": "array", "items": { "$ref": reference(of) } });
    let one = |of: &str| json!({ "$ref": reference(of) });
    let consistency = || json!({ "enum": ["strong", "weak"] });
    let hex =
        |digits: u8| json!({ "type": "string", "pattern": format!("^[0-9a-f]{{{digits}}}$") });
    let secret = || json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" });
    let place = || json!({ "type": "integer", "minimum": 1 });
    let text = || {
        json!({
            "type": "string", "minLength": 1, "maxLength": 8192,
            "pattern": "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$",
            "description": "1 byte to 8 KiB of UTF-8 without U+0000, and something of it can be seen",
        })
    };

    add("BoardName", json!({ "type": "string", "pattern": format!("^{BOARD}$") }));
    add("UserName", json!({ "type": "string", "minLength": 1, "maxLength": 40 }));
    let chosen = json!({
        "type": "string", "pattern": "\\S",
        "description": "1 to 40 characters once it is composed (NFC) and white space is folded; one of them can be seen, none is a control, sets the direction of text or is ignored when shown, but for joiners between two that are seen; not ending in `#` and four hex digits",
    });
    add("ChosenName", chosen);
    add("Author", object(&[("id", hex(32)), ("name", one("UserName"))], &[]));
    add("Master", object(&[("id", hex(32)), ("name", string()), ("http", string())], &[]));
    add(
        "Board",
        object(
            &[("name", one("BoardName")), ("last_seq", integer()), ("read_mark", integer())],
            &[],
        ),
    );
    add(
        "OpenSession",
        object(&[("name", one("ChosenName"))], &[("cookie", json!({ "type": "boolean" }))]),
    );
    let opened = [
        ("user", one("Author")),
        ("boards", list("Board")),
        ("masters", list("Master")),
        ("epoch", integer()),
        ("cluster", hex(32)),
    ];
    add("SessionOpened", object(&opened, &[("token", secret())]));
    let pending = json!({ "type": "array", "items": uuid() });
    let restored = [("pending", pending), ("consistency", consistency()), ("as_of", time())];
    add("SessionRestored", object(&[&opened[..], &restored[..]].concat(), &[]));
    add(
        "BoardList",
        object(
            &[
                ("boards", list("Board")),
                ("epoch", integer()),
                ("consistency", consistency()),
                ("as_of", time()),
            ],
            &[],
        ),
    );
    add("WritePost", object(&[("id", uuid()), ("text", text())], &[]));
    let post = [
        ("id", uuid()),
        ("board", one("BoardName")),
        ("seq", place()),
        ("author", one("Author")),
        ("text", text()),
        ("posted_at", time()),
    ];
    add("Post", object(&post, &[]));
    add(
        "PostList",
        object(
            &[
                ("posts", list("Post")),
                ("last_seq", integer()),
                ("epoch", integer()),
                ("consistency", consistency()),
                ("as_of", time()),
                ("truncated", json!({ "type": "boolean" })),
            ],
            &[],
        ),
    );
    let state = |is: &str| ("state", json!({ "const": is }));
    let committed = object(&[&[state("committed")], &post[..]].concat(), &[]);
    let cancelled = object(&[state("cancelled"), ("id", uuid())], &[]);
    add("PostState", json!({ "oneOf": [committed, cancelled] }));
    add("ReadMark", object(&[("seq", integer())], &[]));
    add("Ticket", object(&[("ticket", secret())], &[]));
    add(
        "User",
        object(
            &[("id", hex(32)), ("name", one("UserName")), ("since", time()), ("last_seen", time())],
            &[("look", string())],
        ),
    );
    let users = [
        ("users", list("User")),
        ("total", integer()),
        ("version", integer()),
        ("consistency", consistency()),
    ];
    add("UserList", object(&users, &[("next", string())]));
    let node = [
        ("id", string()),
        ("name", string()),
        ("role", json!({ "enum": ["master", "worker"] })),
        ("state", json!({ "enum": ["in", "failed", "left"] })),
        ("master", string()),
    ];
    let maybe = [
        ("http", json!({ "type": ["string", "null"] })),
        ("reaches_store", json!({ "type": ["boolean", "null"] })),
        ("failed", object(&[("why", string()), ("times", integer())], &[])),
    ];
    add("Node", object(&node, &maybe));
    let store = || json!({ "enum": ["here", "away"] });
    let reasons = json!({ "enum": AwayReason::ALL.map(AwayReason::name) });
    let why = [("store_reason", reasons)];
    let cluster = [
        ("node", string()),
        ("store", store()),
        ("key_epoch", integer()),
        ("key_age_ms", integer()),
        ("nodes", list("Node")),
    ];
    add("Cluster", object(&cluster, &why));
    add(
        "Readiness",
        object(
            &[("ready", json!({ "type": "boolean" })), ("state", string()), ("store", store())],
            &why,
        ),
    );
    add(
        "Stream",
        json!({ "type": "string", "description": "hello {node, masters, cursor, beat_ms}; post {a Post}; pending {id, state}; presence {version, users, total} with at most 200 people and the reader's own, then {version, since, came, left, total}, at most one a second; who has another version than `since` reads the users again; with `presence=lists` {users}, all of them at each change; state {consistency}; masters {masters}; reset {reason}; beat {}; bye {reason, to, retry_ms}. hello, post and reset carry the cursor after them as their id." }),
    );
    let types: Vec<Value> = ProblemType::ALL.iter().map(|of| of.uri().into()).collect();
    add(
        "Problem",
        object(
            &[
                ("type", json!({ "enum": types })),
                ("title", string()),
                ("status", integer()),
                ("detail", string()),
            ],
            &[],
        ),
    );
    schemas.into()
}

fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = required
        .iter()
        .chain(optional)
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

/// Returns every method, path and need of a session, for the test that compares the router.
#[cfg(test)]
pub(super) fn endpoints() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    OPERATIONS.iter().map(|operation| (operation.method, operation.path, operation.session))
}
