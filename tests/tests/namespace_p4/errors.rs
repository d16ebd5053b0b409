//! ICMP errors through the switch: kernels find what they are about.

use super::datagram::{PORT, echo, service};
use super::{site, vip};
use anyhow::{Result, ensure};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Namespace, SOON};

/// Errors about unreachable destinations that a kernel has taken in.
fn received(namespace: &Namespace, v6: bool) -> Result<u64> {
    let field = if v6 { "Icmp6InDestUnreachs" } else { "IcmpInDestUnreachs" };
    let counted = namespace.sh(&format!("nstat -asz {field}"))?;
    let line = counted.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}

/// A backend on which nobody listens says so, and the client's socket hears of it: the error quotes what the client had sent.
fn backend_refuses(v6: bool) -> Result<()> {
    let (site, switch) = site(1_500)?;
    let _balancer = service(&site, &switch, "nat", v6, "affinity = \"source-ip\"")?;
    let vip = vip(v6).ip();
    let family = if v6 { "AF_INET6" } else { "AF_INET" };
    let program = format!(
        "import socket\ns = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.settimeout(2)\ns.connect((\"{vip}\", {PORT}))\n\
         try:\n    s.send(b\"to nobody\"); s.recv(64)\nexcept ConnectionRefusedError:\n    print(\"refused\")\n"
    );
    let script = site.directory().join("refused.py");
    std::fs::write(&script, program)?;
    eventually(SOON, || {
        let said = site.client.sh(&format!("python3 {}", script.display()))?;
        ensure!(said.trim() == "refused", "the client's socket did not hear of it: {said}");
        Ok(())
    })
}

/// A client that has gone refuses the answer, and its backend hears of it.
fn client_has_gone(mode: &'static str, v6: bool) -> Result<()> {
    let (site, _switch, _balancer) = echo(mode, v6, "affinity = \"source-ip\"")?;
    let vip = vip(v6).ip();
    let clients = site.clients(v6, 3);
    let named: Vec<String> = clients.iter().map(|client| format!("{:?}", client.to_string())).collect();
    let family = if v6 { "AF_INET6" } else { "AF_INET" };
    let program = format!(
        "import socket\nfor client in [{}]:\n    s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n    s.bind((client, 0))\n    \
         s.sendto(b\"gone\", (\"{vip}\", {PORT}))\n    s.close()\n",
        named.join(", ")
    );
    let script = site.directory().join("gone.py");
    std::fs::write(&script, program)?;
    let before = site.backends.iter().map(|backend| received(&backend.namespace, v6));
    let before = before.collect::<Result<Vec<_>>>()?;
    eventually(SOON, || {
        site.client.sh(&format!("python3 {}", script.display()))?;
        let now = site.backends.iter().map(|backend| received(&backend.namespace, v6));
        let now = now.collect::<Result<Vec<_>>>()?;
        ensure!(now.iter().sum::<u64>() > before.iter().sum(), "no backend heard of it: {now:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_errors_to_clients_v4() -> Result<()> {
    backend_refuses(false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_errors_to_clients_v6() -> Result<()> {
    backend_refuses(true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_errors_to_backends_nat_v4() -> Result<()> {
    client_has_gone("nat", false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_errors_to_backends_nat_v6() -> Result<()> {
    client_has_gone("nat", true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_errors_to_backends_l2_v4() -> Result<()> {
    client_has_gone("l2", false)
}
