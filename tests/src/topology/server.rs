//! Real servers in backends' namespaces.

use super::process::{Process, eventually};
use super::{Namespace, SOON};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Answers UDP datagrams from the address that they came to.
const ECHO: &str = include_str!("server/echo.py");

/// Bytes of a header that makes a response's head longer than two segments.
const LONG: usize = 3_400;

/// Starts nginx on ports 80 and 8080 of every address, for HTTP/2 without TLS on port 8082, and behind a PROXY protocol
/// header on port 8083.
///
/// `/whoami` names the backend, the client and the cookie SESS that it sees (below other paths, too), `/login` sets
/// the cookie to a value of its own, `/set?session=S` sets it to S, `/long-set` does so at the end of a long head,
/// `/files/` serves what lies in `files`, and `PUT /put/NAME` stores a body in `directory/put`. `X-Backend` names the
/// backend in the answers that have no text of their own.
pub fn web(namespace: &Namespace, name: &str, directory: &Path, files: &Path) -> Result<Process> {
    let home = directory.join(name);
    std::fs::create_dir_all(home.join("put"))?;
    let configuration = home.join("nginx.conf");
    let (home_text, files) = (home.display(), files.display());
    let long = "x".repeat(LONG);
    let text = format!(
        r#"user root;
daemon off;
master_process off;
worker_processes 1;
pid {home_text}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4000; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    client_max_body_size 0;
    client_body_temp_path {home_text}/body;
    proxy_temp_path {home_text}/proxy;
    fastcgi_temp_path {home_text}/fastcgi;
    uwsgi_temp_path {home_text}/uwsgi;
    scgi_temp_path {home_text}/scgi;
    server {{
        listen 80 backlog=4096;
        listen 8080 backlog=4096;
        listen 8084 backlog=4096;
        listen 8085 backlog=4096;
        listen [::]:80 backlog=4096;
        listen [::]:8080 backlog=4096;
        listen 8082 http2 backlog=4096;
        listen [::]:8082 http2 backlog=4096;
        add_header X-Backend {name} always;
        location ~ /whoami$ {{
            default_type application/json;
            return 200 '{{"backend":"{name}","client":"$remote_addr","session":"$cookie_SESS"}}\n';
        }}
        location = /login {{
            add_header Set-Cookie "SESS=$request_id; Path=/; HttpOnly";
            default_type application/json;
            return 200 '{{"backend":"{name}","session":"$request_id"}}\n';
        }}
        location /files/ {{ alias {files}/; }}
        location /put/ {{ alias {home_text}/put/; dav_methods PUT; }}
        location = /set {{
            default_type application/json;
            add_header Set-Cookie "SESS=$arg_session; Path=/; HttpOnly";
            return 200 '{{"backend":"{name}","client":"$remote_addr"}}\n';
        }}
        location = /long-set {{
            default_type application/json;
            add_header X-Long "{long}";
            add_header Set-Cookie "SESS=$arg_session; Path=/; HttpOnly";
            return 200 '{{"backend":"{name}","client":"$remote_addr"}}\n';
        }}
    }}
    server {{
        listen 8083 proxy_protocol backlog=4096;
        listen [::]:8083 proxy_protocol backlog=4096;
        location = /whoami {{
            default_type application/json;
            return 200 '{{"backend":"{name}","client":"$proxy_protocol_addr $proxy_protocol_port $remote_addr"}}\n';
        }}
    }}
}}
"#
    );
    std::fs::write(&configuration, text)?;
    let arguments = [
        "nginx",
        "-e",
        "stderr",
        "-p",
        home.to_str().context("path is not UTF-8")?,
        "-c",
        configuration.to_str().context("path is not UTF-8")?,
    ];
    let process = namespace.start(&arguments, &home.join("nginx.log"))?;
    ready(namespace, &process, "tcp", 8080)?;
    Ok(process)
}

/// Starts a UDP server that answers `NAME:` and what it received, on each of these addresses.
pub fn echo(namespace: &Namespace, name: &str, directory: &Path, at: &[SocketAddr]) -> Result<Process> {
    let script = directory.join("echo.py");
    std::fs::write(&script, ECHO)?;
    let at: Vec<(String, String)> = at.iter().map(|a| (a.ip().to_string(), a.port().to_string())).collect();
    let mut arguments = vec!["python3", script.to_str().context("path is not UTF-8")?, name];
    for (address, port) in &at {
        arguments.extend([address.as_str(), port.as_str()]);
    }
    let process = namespace.start(&arguments, &directory.join(format!("{name}-echo.log")))?;
    if let Some((_, port)) = at.first() {
        ready(namespace, &process, "udp", port.parse()?)?;
    }
    Ok(process)
}

/// Starts an iperf3 server.
pub fn iperf(namespace: &Namespace, name: &str, directory: &Path) -> Result<Process> {
    let process = namespace.start(&["iperf3", "-s"], &directory.join(format!("{name}-iperf.log")))?;
    ready(namespace, &process, "tcp", 5201)?;
    Ok(process)
}

/// Writes a file in which no eight bytes occur twice, so that lost, doubled and moved pieces all show.
pub fn file(path: &Path, bytes: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for place in 1..=bytes / 8 {
        file.write_all(&place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// An address as it stands in a URL.
pub fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn ready(namespace: &Namespace, process: &Process, protocol: &str, port: u16) -> Result<()> {
    let flags = if protocol == "tcp" { "-Htln" } else { "-Huln" };
    eventually(SOON, || {
        let listening = namespace.sh(&format!("ss {flags} 'sport = :{port}'"))?;
        ensure!(!listening.is_empty(), "nothing listens on {protocol} port {port}: {}", process.log());
        Ok(())
    })
}
