//! Agreement of the OpenAPI text and the router.

use serde_json::Value;

use crate::{
    http::{openapi, openapi_text},
    testing::http::{Ask, Site, snapshots},
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
    lines.push(format!("info {}", document["info"]));
    lines.join("\n")
}
