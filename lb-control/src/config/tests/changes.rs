//! Differences in words, and what `lbctl config` prints.

use super::*;

const OLD: &str = r#"
[node]
interfaces = ["eth0"]
bindings = 4096

[[service]]
name = "web"
address = "192.0.2.1"
port = 80
mode = "nat"

[[service.backend]]
name = "be1"
address = "198.51.100.1"

[[service.backend]]
name = "be2"
address = "198.51.100.2"

[[service]]
name = "old"
address = "2001:db8::1"
port = "any"
protocol = "udp"
mode = "gue"
backend = [{ name = "be1", address = "198.51.100.1" }]
"#;

const NEW: &str = r#"
[node]
name = "lb1"
interfaces = ["eth0", "eth1"]
bindings = 8192
session-secret = "000102030405060708090a0b0c0d0e0f"
limits = { answer-rate = 5 }

[admin]
socket = "/run/other.sock"

[[service]]
name = "new"
address = "192.0.2.2"
port = 443
mode = "ipip"
backend = [{ name = "be1", address = "198.51.100.1" }]

[[service]]
name = "web"
address = "192.0.2.1"
port = 80
mode = "nat"
affinity = { kind = "source-ip", prefix-v4 = 24 }
lifetime = "1h"

[[service.backend]]
name = "be3"
address = "198.51.100.3"
weight = 10

[[service.backend]]
name = "be2"
address = "198.51.100.2"
port = 8080
weight = 3
state = "disabled"
vlan = 7
"#;

const CHANGES: &str = "\
~ node: interfaces [eth0] -> [eth0, eth1] (interfaces are attached and detached)
~ node: bindings 4096 -> 8192 (tables are migrated while traffic runs)
~ node: session-secret (secret) -> (another secret) (sessions are bound anew, maybe to other backends)
~ node: limits.answer-rate 1000 -> 5
+ service `new`: 192.0.2.2:443/tcp, ipip, 1 backend
~ service `web`: affinity source-ip (prefix-v4 32, prefix-v6 64) -> source-ip (prefix-v4 24, prefix-v6 64) (sessions are bound anew, maybe to other backends)
~ service `web`: lifetime 30m -> 1h
+ service `web`, backend `be3`: 198.51.100.3, weight 10
~ service `web`, backend `be2`: address 198.51.100.2 -> 198.51.100.2:8080 (open connections end)
~ service `web`, backend `be2`: weight 1 -> 3
~ service `web`, backend `be2`: state enabled -> disabled (sessions are bound anew, maybe to other backends)
~ service `web`, backend `be2`: vlan auto -> 7
- service `web`, backend `be1`: its sessions move to others
- service `old`: [2001:db8::1]:any/udp
";

const DAEMON_CHANGES: &str = "\
~ node: name (none) -> lb1 (holds after a restart of lbd)
~ node: socket /run/stickleback/lbd.sock -> /run/other.sock (holds after a restart of lbd)
";

#[test]
fn differences_are_told_in_words() {
    let old = parse(OLD, "old").unwrap();
    let new = parse(NEW, "new").unwrap();
    let secret = *b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";
    let state = tempfile::tempdir().unwrap();
    let resolved = new.resolve(state.path()).unwrap();
    let mut expected = new.desired(secret);
    expected.node.secrets = resolved.node.secrets.clone();
    assert_eq!(resolved, expected);
    assert_ne!(resolved.node.secrets.syn_cookie, [0; 16]);
    let differences = difference(&old.desired([9; 16]), &new.desired(secret));
    let told: String = differences.iter().map(|difference| format!("{difference}\n")).collect();
    assert_eq!(told, CHANGES);
    assert!(difference(&new.desired(secret), &new.desired(secret)).is_empty());

    let json = serde_json::to_value(&differences).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({
            "kind": "node-changed", "field": "bindings", "from": "4096", "to": "8192", "effect": "migrates-tables"
        })
    );
    assert_eq!(
        json[9],
        serde_json::json!({
            "kind": "backend-changed", "service": "web", "backend": "be2",
            "field": "weight", "from": "1", "to": "3", "effect": "live"
        })
    );
}

#[test]
fn commands_print_for_people_and_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = directory.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let (old, new) = (file("old.toml", OLD), file("new.toml", NEW));
    let bad = file("bad.toml", &NEW.replace("\"ipip\"", "\"ipipi\""));

    let checked = check_file(&old);
    assert!(checked.success);
    assert!(checked.text.ends_with("old.toml: valid, 2 services, 3 backends"), "{}", checked.text);
    assert_eq!((&checked.json["valid"], &checked.json["services"]), (&true.into(), &2.into()));

    let refused = check_file(&bad);
    assert!(!refused.success);
    assert!(refused.text.contains("did you mean \"ipip\"?"), "{}", refused.text);
    assert_eq!((&refused.json["valid"], &refused.json["problems"][0]["line"]), (&false.into(), &16.into()));

    let files = diff_files(&old, &new);
    assert!(files.success);
    assert_eq!(files.text, format!("{CHANGES}{DAEMON_CHANGES}16 differences"));
    assert_eq!(diff_files(&old, &old).text, "no differences");
    assert!(!diff_files(&old, &bad).success);

    // A file without a secret keeps the one in use.
    let running = parse(OLD, "old").unwrap().desired([7; 16]);
    assert_eq!(diff_running(&running, &old).text, "no differences");
    assert_eq!(diff_running(&running, &new).text, format!("{CHANGES}14 differences"));
    let secret = file("secret", "nonsense");
    let elsewhere = format!("[node]\nsession-secret-file = {secret:?}\n");
    let unresolved = diff_running(&running, file("elsewhere.toml", &elsewhere));
    assert!(!unresolved.success);
    assert!(unresolved.text.contains("holds no session secret"), "{}", unresolved.text);
}
