//! The systemd unit: `lbd` does all its work with the capabilities that it grants, and takes each of them.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::process::Command;
use stickleback_tests::topology::balancer::binary;
use stickleback_tests::topology::process::run;
use stickleback_tests::topology::{Arms, NodeConfig, SOON, Site, config};

const UNIT: &str = include_str!("../../packaging/stickleback.service");

/// The capabilities of the unit, as `setpriv` writes them.
fn granted() -> Result<Vec<String>> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit does not bound the capabilities")?.split_whitespace();
    Ok(names.map(|name| name.to_lowercase().trim_start_matches("cap_").to_owned()).collect())
}

/// What runs a command as root with these capabilities and no others.
fn with(capabilities: &[String]) -> Vec<String> {
    let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    ["setpriv", "--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{set}")]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn namespace_unit_grants_what_is_needed() -> Result<()> {
    let site = Site::new(Arms::Two, 2)?;
    let vip = SocketAddr::from(([10, 99, 0, 1], 80));
    let service = site.service("web", vip, "nat", false).with("affinity = \"source-ip\"");
    let mut balancer =
        site.balance_under(&with(&granted()?), &site.node(), std::slice::from_ref(&service))?;
    site.serves(vip)?;
    balancer.ctl(&["drain", "web", "be1"])?;
    balancer.ctl(&["sessions", "list"])?;

    // Other sizes: everything is migrated, and the programs are replaced.
    let base = site.node();
    let larger = NodeConfig { node: format!("{}\nbindings = 2097152\n", base.node), ..base };
    balancer.reload(&config::text(&larger, &[service]))?;
    site.serves(vip)?;
    balancer.kill();
    balancer.restart()?;
    site.serves(vip)?;
    balancer.ctl(&["detach", "--yes"])?;
    ensure!(!site.lb.sh("ip link show dev l0")?.contains("xdp"), "a program is left on l0");
    Ok(())
}

#[test]
fn namespace_unit_grants_no_more() -> Result<()> {
    let granted = granted()?;
    for missing in &granted {
        let others: Vec<String> = granted.iter().filter(|name| *name != missing).cloned().collect();
        let command = with(&others);
        let (program, arguments) = command.split_first().context("a command")?;
        let mut lbd = Command::new(program);
        lbd.args(arguments).arg(binary("lbd")?).args(["--config", "/nowhere/lb.toml"]);
        let refused = run(&mut lbd, SOON)?;
        let name = format!("CAP_{}", missing.to_uppercase());
        ensure!(refused.status.code() == Some(1) && refused.stderr.contains(&name), "{missing}: {refused:?}");
    }
    Ok(())
}

/// `ProtectKernelTunables=` makes the BPF file system read-only, and `ReadWritePaths=` does not help against it.
#[test]
fn unit_leaves_the_pins_writable() {
    let has = |line: &str| UNIT.lines().any(|found| found == line);
    assert!(has("ReadWritePaths=/sys/fs/bpf") && has("ReadOnlyPaths=/proc/sys /sys"));
    assert!(!UNIT.lines().any(|line| line.starts_with("ProtectKernelTunables=")));
}
