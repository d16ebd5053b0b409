//! What is set up for a way, and taken down again.

use super::BACKENDS;
use super::way::Way;
use crate::topology::process::eventually;
use crate::topology::{Balancer, Process, SOON, Site};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Servers' ports of the ways that leave clients their ports: a server takes no connection from a port that has just
/// asked it by another way, where the client counts from another number.
const KERNEL_PORT: u16 = 8_084;
const NAT_PORT: u16 = 8_085;

/// What stands between clients and servers; taken down when dropped.
pub(super) enum Standing<'a> {
    Router,
    KernelNat(&'a Site),
    Proxy { _process: Process },
    Stickleback(Balancer),
}

impl<'a> Standing<'a> {
    pub(super) fn set_up(site: &'a Site, way: Way) -> Result<Self> {
        let standing = match way {
            Way::Direct => Self::Router,
            Way::KernelNat => kernel_nat(site)?,
            Way::Haproxy => Self::Proxy { _process: haproxy(site)? },
            Way::Nginx => Self::Proxy { _process: nginx(site)? },
            Way::Nat | Way::Ipip | Way::Cookie => Self::Stickleback(stickleback(site)?),
        };
        let address = way.address();
        eventually(SOON, || {
            site.client.sh(&format!("curl -sf --noproxy '*' --max-time 2 http://{address}/whoami"))
        })
        .with_context(|| format!("{} does not serve", way.name()))?;
        Ok(standing)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        match self {
            Self::Router | Self::Proxy { .. } => {}
            Self::KernelNat(site) => {
                if let Err(error) = site.lb.sh("nft delete table ip peer") {
                    eprintln!("the peer's rules stay: {error:#}");
                }
            }
            Self::Stickleback(balancer) => {
                if let Err(error) = balancer.ctl(&["detach", "--yes"]) {
                    eprintln!("the balancer stays attached: {error:#}");
                }
            }
        }
    }
}

fn kernel_nat(site: &Site) -> Result<Standing<'_>> {
    let servers: Vec<String> = (0..).zip(&site.backends).map(|(n, b)| format!("{n} : {}", b.v4)).collect();
    site.lb.sh(&format!(
        "nft add table ip peer
         nft 'add chain ip peer pre {{ type nat hook prerouting priority -100 ; }}'
         nft 'add rule ip peer pre ip daddr {} tcp dport 80 dnat to numgen inc mod {BACKENDS} map {{ {} }} : {KERNEL_PORT}'",
        Way::KernelNat.address().ip(),
        servers.join(", ")
    ))?;
    Ok(Standing::KernelNat(site))
}

fn stickleback(site: &Site) -> Result<Balancer> {
    let service = |way: Way, mode, affinity: &str| {
        site.service(way.name(), way.address(), mode, false).with(&format!("affinity = {affinity}"))
    };
    let mut nat = service(Way::Nat, "nat", "\"none\"");
    nat.backends.iter_mut().for_each(|backend| backend.lines = format!("port = {NAT_PORT}\n"));
    site.balance(&[
        nat,
        service(Way::Ipip, "ipip", "\"none\""),
        service(Way::Cookie, "nat", "{ kind = \"http-cookie\", cookie = \"SESS\" }"),
    ])
}

fn haproxy(site: &Site) -> Result<Process> {
    let mut text = format!(
        "global\n  nbthread 2\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend front\n  bind {}\n  default_backend servers\nbackend servers\n  \
         balance roundrobin\n  http-reuse always\n  stick-table type string len 64 size 100k expire 10m\n  \
         stick on req.cook(SESS)\n",
        Way::Haproxy.address()
    );
    for backend in &site.backends {
        writeln!(text, "  server {} {}:8080", backend.name, backend.v4)?;
    }
    let path = write(site, "haproxy.cfg", &text)?;
    site.lb.start(&["haproxy", "-db", "-f", &path], &log(site, "haproxy.log"))
}

fn nginx(site: &Site) -> Result<Process> {
    let mut servers = String::new();
    for backend in &site.backends {
        write!(servers, "server {}:8080; ", backend.v4)?;
    }
    let directory = site.directory().display();
    let text = format!(
        "daemon off;\nworker_processes 2;\npid {directory}/proxy.pid;\nerror_log {directory}/proxy-error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  keepalive_requests 100000000;\n  \
         client_body_temp_path {directory}/proxy-body;\n  proxy_temp_path {directory}/proxy-temp;\n  \
         fastcgi_temp_path {directory}/proxy-fastcgi;\n  uwsgi_temp_path {directory}/proxy-uwsgi;\n  \
         scgi_temp_path {directory}/proxy-scgi;\n  \
         upstream servers {{ hash $cookie_SESS consistent; {servers}keepalive 64; keepalive_requests 100000000; }}\n  \
         server {{\n    listen {} reuseport;\n    location / {{\n      proxy_pass http://servers;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n  }}\n}}\n",
        Way::Nginx.address()
    );
    let path = write(site, "proxy.conf", &text)?;
    site.lb.start(&["nginx", "-c", &path], &log(site, "proxy.log"))
}

fn write(site: &Site, name: &str, text: &str) -> Result<String> {
    let file = site.directory().join(name);
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file.to_str().context("path is not UTF-8")?.to_owned())
}

fn log(site: &Site, name: &str) -> PathBuf {
    site.directory().join(name)
}
