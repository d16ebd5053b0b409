//! Every kind of check, against servers of other makes: nginx with OpenSSL, the kernel, Python, a program.
//!
//! The first backend is as each check wants it, the second one is not, in a way that only this check shows.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Arms, Balancer, Process, Site};

const PATIENCE: Duration = Duration::from_secs(30);
/// Whom certificates are for.
const NAME: &str = "shop.test";
/// `SERVING` and `NOT_SERVING` of grpc.health.v1, each in a frame of gRPC.
const GRPC: [&[u8]; 2] = [b"\0\0\0\0\x02\x08\x01", b"\0\0\0\0\x02\x08\x02"];

/// A check, and why the second backend fails it; `None` = it passes.
struct Kind {
    name: &'static str,
    health: String,
    fails: Option<&'static str>,
}

fn kinds(authority: &Path) -> Vec<Kind> {
    let kind = |name, health: &str, fails| Kind { name, health: health.to_owned(), fails };
    let secured = |rest: &str| format!("kind = \"http\", tls = true, path = \"/health\", {rest}");
    let checked = |rest: &str| secured(&format!("authorities = {authority:?}, {rest}"));
    vec![
        kind("tcp", "kind = \"tcp\", port = 9001", Some("refused the connection")),
        kind(
            "status",
            "kind = \"http\", port = 9002, path = \"/teapot\", status = \"418\"",
            Some("status 200"),
        ),
        kind(
            "body",
            "kind = \"http\", port = 9002, path = \"/health\", body = \"all well\"",
            Some("the body"),
        ),
        kind(
            "host",
            "kind = \"http\", port = 9002, path = \"/host\", host = \"shop.test\"",
            Some("status 404"),
        ),
        kind("https", &checked("port = 9003, host = \"shop.test\""), Some("TLS: ")),
        kind("https-unchecked", &secured("port = 9003, host = \"shop.test\", verify = false"), None),
        kind("sni", &checked("port = 9004, server-name = \"shop.test\""), Some("TLS: ")),
        kind("h2c", "kind = \"http\", version = 2, port = 9005, path = \"/health\"", Some("")),
        kind("h2", &secured("version = 2, port = 9006, host = \"shop.test\", verify = false"), Some("TLS: ")),
        kind("grpc", "kind = \"grpc\", port = 9007", Some("says that it does not serve")),
        kind("icmp", "kind = \"icmp\"", Some("no answer within")),
        kind(
            "udp",
            "kind = \"udp\", port = 9008, request = \"who\", response = \"be1:who\"",
            Some("the body"),
        ),
        kind(
            "command",
            "kind = \"command\", command = [\"/usr/bin/test\", \"{address}\", \"=\", \"10.2.1.2\"]",
            Some("the command ended with 1"),
        ),
    ]
}

/// A web server that is as the checks want it, or not.
fn web(site: &Site, n: usize) -> Result<Process> {
    let (backend, is_well) = (&site.backends[n], n == 0);
    let home = site.directory().join(format!("{}-kinds", backend.name));
    std::fs::create_dir_all(&home)?;
    // The authority of the checks is the first one's own certificate; each has one of another name, too.
    for name in [NAME, "other.test"] {
        let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
        std::fs::write(home.join(format!("{name}.pem")), made.cert.pem())?;
        std::fs::write(home.join(format!("{name}.key")), made.signing_key.serialize_pem())?;
    }
    std::fs::write(home.join("serving"), GRPC[n])?;
    let home_text = home.display();
    let pick = |well: &'static str, ill: &'static str| if is_well { well } else { ill };
    let tcp = pick("server { listen 9001; }", "");
    let (teapot, health) = (pick("418", "200"), pick("all well", "all is lost"));
    let (host, named) = (pick(NAME, "elsewhere.test"), pick(NAME, "other.test"));
    let (clear, alpn) = (pick("http2", ""), pick("http2", ""));
    let secret = |name: &str| {
        format!("ssl_certificate {home_text}/{name}.pem; ssl_certificate_key {home_text}/{name}.key;")
    };
    let answer = format!("location = /health {{ return 200 '{health}\\n'; }}");
    let (right, other) = (secret(NAME), secret("other.test"));
    let named = secret(named);
    let text = format!(
        r#"user root;
daemon off;
master_process off;
pid {home_text}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 400; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {home_text}/body;
    proxy_temp_path {home_text}/proxy;
    fastcgi_temp_path {home_text}/fastcgi;
    uwsgi_temp_path {home_text}/uwsgi;
    scgi_temp_path {home_text}/scgi;
    {tcp}
    server {{
        listen 9002 default_server;
        {answer}
        location = /teapot {{ return {teapot} 'short and stout\n'; }}
        location = /host {{ return 404 'nobody\n'; }}
    }}
    server {{
        listen 9002;
        server_name {host};
        {answer}
        location = /teapot {{ return {teapot} 'short and stout\n'; }}
        location = /host {{ return 200 'here\n'; }}
    }}
    server {{ listen 9003 ssl; {right} {answer} }}
    server {{ listen 9004 ssl default_server; {other} {answer} }}
    server {{ listen 9004 ssl; server_name {NAME}; {named} {answer} }}
    server {{ listen 9005 {clear}; {answer} }}
    server {{ listen 9006 ssl {alpn}; {right} {answer} }}
    server {{
        listen 9007 http2;
        default_type application/grpc;
        add_trailer grpc-status 0;
        error_page 405 =200 /serving;
        location = /grpc.health.v1.Health/Check {{ alias {home_text}/serving; }}
        location = /serving {{ alias {home_text}/serving; }}
    }}
}}
"#
    );
    let configuration = home.join("nginx.conf");
    std::fs::write(&configuration, text)?;
    let (home, configuration) = (home.display().to_string(), configuration.display().to_string());
    let log = Path::new(&home).join("nginx.log");
    backend.namespace.start(&["nginx", "-e", "stderr", "-p", &home, "-c", &configuration], &log)
}

/// What the checks of a service make of a backend.
fn health(balancer: &Balancer, service: &str, backend: &str) -> Result<Value> {
    let rows = balancer.ask(&["backends", "--service", service])?;
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == backend));
    Ok(row.with_context(|| format!("no {backend} in {rows}"))?["health"].clone())
}

#[test]
fn namespace_health_every_kind_of_check() -> Result<()> {
    let mut site = Site::new(Arms::Two, 2)?;
    site.echo(9_008, &[])?;
    let mut servers = Vec::new();
    for n in 0..2 {
        servers.push(web(&site, n)?);
    }
    site.backends[1].namespace.set("ipv4/icmp_echo_ignore_all=1")?;
    let kinds = kinds(&site.directory().join("be1-kinds/shop.test.pem"));
    let services = (1..).zip(&kinds).map(|(port, kind)| {
        let vip = SocketAddr::new([10, 99, 0, 1].into(), port);
        site.service(kind.name, vip, "nat", false).with(&format!("health = {{ {} }}", kind.health))
    });
    let balancer = site.balance(&services.collect::<Vec<_>>())?;
    for Kind { name, health: _, fails } in &kinds {
        eventually(PATIENCE, || {
            let (first, second) = (health(&balancer, name, "be1")?, health(&balancer, name, "be2")?);
            ensure!(first["state"] == "healthy", "{name}: be1 is {first}: {}", servers[0].log());
            let expected = if fails.is_some() { "down" } else { "healthy" };
            ensure!(second["state"] == expected, "{name}: be2 is {second}, not {expected}");
            let reason = second["reason"].as_str().unwrap_or_default();
            ensure!(
                reason.contains(fails.unwrap_or_default()),
                "{name}: be2 is {second}, since it {fails:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}
