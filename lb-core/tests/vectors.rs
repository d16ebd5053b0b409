//! The published test vectors are what this crate computes, and what the second implementation computes.
//!
//! `UPDATE_VECTORS=1 cargo test -p lb-core --test vectors -- --test-threads=1` writes them anew; a change breaks every
//! application server that knows the old function.

use lb_common::select::Probes;
use lb_core::pool::identity::{mix, server_number, service_id};
use lb_core::pool::table::{Selection, Share};
use serde_json::{Value, json};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/order.json");
const SECOND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/order.py");

/// Pools up to this size are published in full, of larger ones so many servers of each order.
const IN_FULL: usize = 20;

fn named(names: impl IntoIterator<Item = (String, u32)>) -> Vec<Share> {
    names.into_iter().map(|(name, weight)| Share { number: server_number(&name), weight }).collect()
}

fn web(count: u32, weight: impl Fn(u32) -> u32) -> Vec<Share> {
    named((1..=count).map(|i| (format!("web-{i}"), weight(i))))
}

fn pools() -> Vec<(&'static str, Vec<Share>)> {
    vec![
        ("one server", web(1, |_| 1)),
        ("three equal servers", web(3, |_| 1)),
        ("three equal servers, each with weight 100", web(3, |_| 100)),
        ("weights 1, 2 and 3", web(3, |i| i)),
        ("weights 1 and 1000", web(2, |i| if i == 1 { 1 } else { 1000 })),
        ("one of three has weight 0", web(3, |i| u32::from(i != 2))),
        ("all have weight 0", web(3, |_| 0)),
        (
            "small given numbers",
            (0..10).map(|number| Share { number, weight: 1 + number as u32 % 3 }).collect(),
        ),
        ("the ends of the number range", [0, 1, u64::MAX].map(|number| Share { number, weight: 5 }).to_vec()),
        ("a hundred equal servers", web(100, |_| 10)),
        ("weights from 1 to 100", web(100, |i| i)),
        ("some units are split", web(400, |i| 1 + i % 2)),
        ("a thousand servers", web(1000, |_| 1)),
        ("the largest table, small weights raised", web(1200, |i| if i % 3 == 0 { 1 } else { 1000 })),
    ]
}

fn keys() -> impl Iterator<Item = u64> {
    // Clients 192.0.2.1 and 198.51.100.7, networks 2001:db8:0:1::/64 and fd99::/64, the ends, then any.
    let chosen = [0xc000_0201, 0xc633_6407, 0x2001_0db8_0000_0001, 0xfd99_0000_0000_0000, 0, 1, u64::MAX];
    chosen.into_iter().chain((0..9).map(mix))
}

/// CRC-32 of the table; the probe function has no general one, so bit by bit.
fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

fn pool_vector(name: &str, servers: &[Share]) -> Value {
    let selection = Selection::new(servers.iter().copied()).expect("different numbers");
    let hex = |number: u64| format!("{number:016x}");
    let orders: Vec<Value> = keys()
        .map(|key| {
            let places = selection.order(key).into_iter().take(IN_FULL);
            let order: Vec<String> =
                places.map(|place| hex(selection.members()[usize::from(place)].number)).collect();
            json!({"key": hex(key), "order": order})
        })
        .collect();
    let servers: Vec<Value> =
        servers.iter().map(|s| json!({"number": hex(s.number), "weight": s.weight})).collect();
    let mut vector = json!({
        "name": name,
        "servers": servers,
        "slots": selection.slots().len(),
        "table": crc32(selection.slots().iter().flat_map(|place| place.to_be_bytes())),
        "orders": orders,
    });
    if servers.len() <= IN_FULL {
        let owned = |place: usize| selection.slots().iter().filter(|&&p| usize::from(p) == place).count();
        vector["owned"] = (0..servers.len()).map(owned).collect();
    }
    vector
}

fn vectors() -> Value {
    let names: Vec<Value> = ["", "a", "web-1", "web-2", "be1.example.net", "Größe"]
        .into_iter()
        .map(|name| {
            let number = format!("{:016x}", server_number(name));
            json!({"name": name, "server_number": number, "service_id": service_id(name)})
        })
        .collect();
    let pools: Vec<Value> = pools().iter().map(|(name, servers)| pool_vector(name, servers)).collect();
    json!({"description": "Test vectors of docs/order.md", "names": names, "pools": pools})
}

/// A line for each server and order, so that a difference is readable.
fn render(vectors: &Value) -> String {
    fn write(value: &Value, depth: usize, out: &mut String) {
        let indent = |depth: usize| format!("\n{}", "  ".repeat(depth));
        match value {
            Value::Object(fields) if depth < 3 => {
                for (i, (key, value)) in fields.iter().enumerate() {
                    out.push_str(if i == 0 { "{" } else { "," });
                    out.push_str(&format!("{}{}: ", indent(depth + 1), json!(key)));
                    write(value, depth + 1, out);
                }
                out.push_str(&format!("{}}}", indent(depth)));
            }
            Value::Array(items) if depth < 4 && items.iter().any(Value::is_object) => {
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "[" } else { "," });
                    out.push_str(&indent(depth + 1));
                    write(item, depth + 1, out);
                }
                out.push_str(&format!("{}]", indent(depth)));
            }
            Value::Object(_)
            | Value::Array(_)
            | Value::String(_)
            | Value::Number(_)
            | Value::Bool(_)
            | Value::Null => out.push_str(&value.to_string()),
        }
    }
    let mut out = String::new();
    write(vectors, 0, &mut out);
    out.push('\n');
    out
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that reads and, when asked, writes the published file")]
fn published_vectors_are_what_we_compute() {
    let computed = vectors();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(PATH, render(&computed)).unwrap();
    }
    let published: Value = serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap();
    assert_eq!(published["names"], computed["names"]);
    let pools = computed["pools"].as_array().unwrap();
    assert_eq!(published["pools"].as_array().unwrap().len(), pools.len());
    for (published, computed) in published["pools"].as_array().unwrap().iter().zip(pools) {
        assert!(published == computed, "pool {} differs", computed["name"]);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "starts the second implementation")]
fn the_second_implementation_computes_the_published_vectors() {
    let output = std::process::Command::new("python3")
        .arg(SECOND)
        .output()
        .expect("python3 must be installed: it runs docs/vectors/order.py");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

#[test]
fn probes_are_the_crc_that_the_vectors_mean() {
    for key in keys() {
        for i in 0..=16_u8 {
            let bytes = key.to_be_bytes().into_iter().chain([i]);
            assert_eq!(Probes::new(key).value(u32::from(i)), crc32(bytes));
        }
    }
}
