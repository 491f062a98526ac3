//! Agreement of the OpenAPI text and the router.

use serde_json::Value;

use crate::{
    http::{openapi, openapi_text},
    testing::{
        http::{Ask, Site},
        snapshots,
    },
};

#[tokio::test(start_paused = true)]
async fn endpoints_of_the_contract_are_served() {
    let site = Site::new();
    for (method, path, session) in openapi::endpoints() {
        let method = method.to_uppercase();
        let path = path.replace("{board}", "lobby").replace("{id}", "x");
        let answer = site.send(Ask::new(&method, &path)).await;
        assert!(!matches!(answer.status, 405 | 500), "{method} {path}: {answer:?}");
        if answer.status == 404 {
            assert_ne!(answer.problem(), "unknown-path", "{method} {path}");
        }
        assert_eq!(session, answer.status == 401, "{method} {path}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn contract_is_unchanged() {
    let site = Site::new();
    let answer = site.get("/api/v1/openapi.json", "").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, openapi_text());
    let references = answer.body.matches("#/components/schemas/").count();
    let schemas = &answer.json()["components"]["schemas"];
    for part in answer.body.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap_or_default();
        assert!(schemas.get(name).is_some(), "{name} of {references}");
    }
    snapshots().bind(|| insta::assert_snapshot!("http_openapi", by_line(&answer.json())));
}

#[test]
fn contract_says_what_the_checks_check() {
    let document: Value = serde_json::from_str(openapi_text()).expect("JSON");
    assert_eq!(document["servers"][0]["url"], "/");
    assert_eq!(document["security"], serde_json::json!([]));
    let description = document["info"]["description"].as_str().unwrap_or_default();
    assert!(description.contains("are ignored"), "{description}");
    let schemas = &document["components"]["schemas"];
    for (schema, property, key) in [
        ("WritePost", "text", "pattern"),
        ("WritePost", "text", "maxLength"),
        ("Ticket", "ticket", "pattern"),
        ("SessionOpened", "token", "pattern"),
        ("Author", "id", "pattern"),
    ] {
        let said = &schemas[schema]["properties"][property][key];
        assert!(!said.is_null(), "{schema}.{property} has no {key}");
    }
    let asked = &document["paths"]["/api/v1/boards/{board}/posts"]["get"]["parameters"];
    let limits = asked.as_array().expect("parameters").iter().filter(|one| one["name"] == "limit");
    assert!(limits.into_iter().all(|limit| limit["schema"]["minimum"] == 1));
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(operation["responses"].get("421").is_some(), "{method} {path}");
        }
    }
}

/// The whole text with one line for each endpoint and schema, so that a change reads as one.
fn by_line(document: &Value) -> String {
    let mut lines = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            lines.push(format!("{} {path} {operation}", method.to_uppercase()));
        }
    }
    for part in ["schemas", "securitySchemes"] {
        for (name, schema) in document["components"][part].as_object().expect("components") {
            lines.push(format!("{name} {schema}"));
        }
    }
    for part in ["info", "servers", "security"] {
        lines.push(format!("{part} {}", document[part]));
    }
    lines.join("\n")
}
