//! The OpenAPI description of the admin API.

use super::{error, route, row};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stickleback admin API",
        description = "See and steer one load balancer node, over its Unix socket.",
        license(name = "Apache-2.0 OR MIT")
    ),
    tags(
        (name = "daemon", description = "The daemon itself"),
        (name = "pool", description = "Services and backends"),
        (name = "sessions", description = "Bindings, flows and why packets go where they go"),
        (name = "cluster", description = "Nodes that act as one"),
        (name = "configuration", description = "The configuration file and what runs")
    ),
    paths(
        route::status::status,
        route::status::events,
        route::status::metrics,
        route::pool::services,
        route::pool::backends,
        route::pool::drain,
        route::pool::disable,
        route::pool::load,
        route::pool::fail_back,
        route::pool::undrain,
        route::pool::weight,
        route::session::list,
        route::session::show,
        route::session::delete,
        route::session::pin,
        route::flow::list,
        route::explain::explain,
        route::seal::seal,
        route::config::show,
        route::config::pending,
        route::config::diff,
        route::config::reload,
        route::config::detach,
        route::cluster::status,
        route::cluster::init,
        route::cluster::join,
        route::cluster::token,
        route::cluster::remove,
        route::cluster::rotate
    ),
    components(schemas(error::ErrorBody, row::StatusRow))
)]
struct Description;

/// The description as JSON.
pub fn document() -> String {
    // A description is made of strings and maps with string keys only, which always turn into JSON.
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Run with `STICKLEBACK_BLESS=1` to write the file anew.
    #[test]
    fn document_in_the_repository_is_fresh() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("STICKLEBACK_BLESS").is_some() {
            std::fs::write(&file, document()).expect("writes");
        }
        let stored = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(stored == document(), "docs/openapi.json is stale: run the tests with STICKLEBACK_BLESS=1");
    }

    #[test]
    fn every_operation_is_described() {
        let json: serde_json::Value = serde_json::from_str(&document()).expect("is JSON");
        for (path, operations) in json["paths"].as_object().expect("has paths") {
            for (method, operation) in operations.as_object().expect("has operations") {
                let text = operation["summary"].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{method} {path} has no summary");
            }
        }
        assert!(json["components"]["schemas"]["ErrorBody"].is_object());
    }

    /// The other way round is a test of the daemon, which asks for everything that is described.
    #[test]
    fn every_route_is_described() {
        let json: serde_json::Value = serde_json::from_str(&document()).expect("is JSON");
        let mut routes = 0;
        for line in include_str!("route.rs").split(".route(\"").skip(1) {
            let (path, handlers) = line.split_once('"').expect("a path is a string");
            let handlers = handlers.lines().next().expect("there is a handler");
            if path == "/v1/openapi.json" {
                continue;
            }
            for method in ["get", "post", "put", "delete"] {
                if handlers.contains(&format!("{method}(")) {
                    routes += 1;
                    assert!(json["paths"][path][method].is_object(), "{method} {path} is not described");
                }
            }
        }
        assert!(routes > 15, "only {routes} routes were found");
    }
}
