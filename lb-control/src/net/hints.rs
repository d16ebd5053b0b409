//! Kernel settings that are worth a second look; reported, never changed.

use std::fs;

/// Hints about the settings of this network namespace for a balancer on `interface` with so many backends.
pub fn hints(interface: &str, backends: usize) -> Vec<String> {
    hints_from(interface, backends, |setting| {
        fs::read_to_string(format!("/proc/sys/{setting}")).ok().map(|value| value.trim().to_owned())
    })
}

/// The same from any source of settings; a setting that cannot be read gives no hint.
fn hints_from(interface: &str, backends: usize, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let number = |setting: &str| read(setting)?.parse::<u64>().ok();
    let mut hints = Vec::new();
    let mut hint = |is: bool, text: String| {
        if is {
            hints.push(text);
        }
    };

    hint(
        number("net/core/bpf_jit_enable") == Some(0),
        "net.core.bpf_jit_enable is 0: XDP programs are interpreted, many times slower; set it to 1"
            .to_owned(),
    );
    for (setting, family) in [("net/ipv4/ip_forward", "IPv4"), ("net/ipv6/conf/all/forwarding", "IPv6")] {
        hint(
            number(setting) == Some(0),
            format!(
                "{} is 0: services are forwarded by XDP all the same, but other {family} traffic of backends that \
                 use this machine as their gateway is not; set it to 1 for mode `nat` without source NAT",
                setting.replace('/', ".")
            ),
        );
    }
    // The stricter of the two counts.
    let filter =
        ["all", interface].iter().filter_map(|name| number(&format!("net/ipv4/conf/{name}/rp_filter"))).max();
    hint(
        filter == Some(1),
        format!(
            "net.ipv4.conf.{interface}.rp_filter is strict: packets that XDP passes on are dropped when their way \
             back is another interface; use 2 (loose) with more than one uplink"
        ),
    );
    let redirects = ["all", interface]
        .iter()
        .any(|name| number(&format!("net/ipv4/conf/{name}/send_redirects")) == Some(1));
    hint(
        redirects && number("net/ipv4/ip_forward") == Some(1),
        format!(
            "net.ipv4.conf.{interface}.send_redirects is 1: on a one-armed balancer the kernel tells backends to go \
             around it; set it (and net.ipv4.conf.all.send_redirects) to 0"
        ),
    );
    for family in ["ipv4", "ipv6"] {
        let setting = format!("net/{family}/neigh/default/gc_thresh3");
        hint(
            number(&setting).is_some_and(|room| room < 2 * backends as u64),
            format!(
                "{} leaves little room for neighbours of {backends} backends; raise it to at least {}",
                setting.replace('/', "."),
                2 * backends
            ),
        );
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[(&str, &str)], backends: usize) -> Vec<String> {
        hints_from("eth0", backends, |wanted| {
            let (_, value) = settings.iter().find(|(name, _)| *name == wanted)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn good_or_unreadable_settings_give_none() {
        assert_eq!(with(&[], 65_536), [""; 0]);
        let good = [
            ("net/core/bpf_jit_enable", "1"),
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/eth0/rp_filter", "2"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/eth0/send_redirects", "0"),
            ("net/ipv4/neigh/default/gc_thresh3", "1024"),
        ];
        assert_eq!(with(&good, 512), [""; 0]);
    }

    #[test]
    fn each_bad_setting_is_named() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("net/core/bpf_jit_enable", "0")], "bpf_jit_enable"),
            (&[("net/ipv4/ip_forward", "0")], "net.ipv4.ip_forward"),
            (&[("net/ipv6/conf/all/forwarding", "0")], "net.ipv6.conf.all.forwarding"),
            (&[("net/ipv4/conf/all/rp_filter", "1"), ("net/ipv4/conf/eth0/rp_filter", "0")], "rp_filter"),
            (&[("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/eth0/send_redirects", "1")], "send_redirects"),
            (&[("net/ipv6/neigh/default/gc_thresh3", "1024")], "net.ipv6.neigh.default.gc_thresh3"),
        ];
        for (settings, expected) in cases {
            let hints = with(settings, 1000);
            assert!(hints.len() == 1 && hints[0].contains(expected), "{settings:?}: {hints:?}");
        }
    }
}
