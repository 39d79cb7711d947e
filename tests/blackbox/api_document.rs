//! The API document: complete, in step with the table of permissions, and shown without a network.

use crate::{
    bad_input::{Api, Operation as Documented},
    on_both, server,
};
use domain::identity::{Access, Operation};
use reqwest::Method;
use std::collections::BTreeSet;
use tests::{Backend, Client};

/// Served beside the documented operations, since it is the document; the table has it so that it is named in metrics
/// and refusals like the others.
const UNDOCUMENTED: &str = "openapi_get";

on_both!(every_operation_but_the_open_ones_asks_who_you_are);

#[tokio::test]
async fn the_document_and_the_table_of_permissions_name_the_same_operations() {
    let server = server(Backend::Sqlite);
    let api = Api::read(&server.admin()).await;
    let documented: BTreeSet<&str> = api.operations.iter().map(Documented::id).collect();
    let tabled: BTreeSet<&str> =
        Operation::ALL.iter().map(|operation| operation.id()).filter(|id| *id != UNDOCUMENTED).collect();
    assert_eq!(documented, tabled);
    assert_eq!(documented.len(), api.operations.len(), "an id is used twice");
    for operation in &api.operations {
        let open = Operation::by_id(operation.id()).unwrap().access() == Access::Public;
        let security = operation.value["security"].as_array().unwrap();
        assert_eq!(security.is_empty(), open, "{}", operation.id());
    }
}

async fn every_operation_but_the_open_ones_asks_who_you_are(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for operation in Api::read(&admin).await.operations {
        let open = Operation::by_id(operation.id()).unwrap().access() == Access::Public;
        let answer = Client::send(admin.anonymous().request(operation.method.clone(), &operation.path_with("1"))).await;
        if open {
            assert_ne!(answer.status, 401, "{}", operation.id());
        } else {
            assert_eq!(answer.status, 401, "{}: {}", operation.id(), answer.text);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{}", operation.id());
        }
    }
}

#[tokio::test]
async fn the_document_changes_only_on_purpose() {
    let server = server(Backend::Sqlite);
    let answer = server.admin().anonymous().get("/openapi.json").await.expect(200);
    insta::assert_json_snapshot!("openapi", answer.json);
}

#[tokio::test]
async fn the_document_is_open_and_can_be_kept_by_its_tag() {
    let server = server(Backend::Sqlite);
    let anonymous = server.admin().anonymous();
    let answer = anonymous.get("/openapi.json").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let etag = answer.header("etag").unwrap();
    let again = anonymous.request(Method::GET, "/openapi.json").header("if-none-match", etag);
    let again = Client::send(again).await.expect(304);
    assert_eq!((again.text.as_str(), again.header("etag")), ("", Some(etag)));
    let other = anonymous.request(Method::GET, "/openapi.json").header("if-none-match", "\"other\"");
    assert_eq!(Client::send(other).await.expect(200).json, answer.json);
}

/// The values of an attribute in a page.
fn attribute<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    page.split(start.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn the_documentation_is_shown_without_inline_scripts_or_a_network() {
    let server = server(Backend::Sqlite);
    let anonymous = server.admin().anonymous();
    let page = anonymous.get("/docs").await.expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    let scripts = policy.split(';').find_map(|part| part.trim().strip_prefix("script-src ")).unwrap();
    assert_eq!(scripts, "'self'");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    for script in page.text.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        assert!(tag.contains(" src=\"") && rest.starts_with("</script>"), "a script is inline: <script{tag}>");
    }
    assert!(!page.text.contains(" on"), "a handler is inline: {}", page.text);
    let assets: Vec<&str> = [attribute(&page.text, "src"), attribute(&page.text, "href")].concat();
    assert!(assets.len() >= 4, "{assets:?}");
    for asset in assets.into_iter().filter(|asset| !asset.starts_with("data:")) {
        assert!(!asset.contains("//"), "{asset} needs a network");
        let answer = anonymous.get(&format!("/{asset}")).await.expect(200);
        let kind = match asset.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "application/json",
        };
        assert_eq!(answer.header("content-type"), Some(kind), "{asset}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{asset}");
        assert!(answer.text.len() > 100, "{asset}");
    }
}
