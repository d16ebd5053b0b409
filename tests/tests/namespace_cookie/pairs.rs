//! Cookies that name a primary and a secondary backend, under a MAC.

use super::Shop;
use super::failing::treat;
use anyhow::{Context, Result, ensure};
use lb_common::affinity::pair;
use std::net::SocketAddr;
use stickleback_tests::topology::{Arms, NodeConfig, ServiceConfig, Site, config};

/// As application servers build them: their own id, then what the balancer reads.
const LINES: &str = r#"id = 7
affinity = { kind = "http-cookie", cookie = "JSESSIONID", delimiter = "!", segment = 2, read = "pair" }"#;
const KEYS: &str = r#"[[node.segment-key]]
id = 3
key = "000102030405060708090a0b0c0d0e0f"
[[node.segment-key]]
id = 4
key = "101112131415161718191a1b1c1d1e1f"
"#;
/// The same keys as words.
const SECRETS: [(u8, [u64; 2]); 2] = [
    (3, [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]),
    (4, [0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918]),
];
const NUMBERS: [u64; 3] = [0x1234_5678_9abc_def0, 0x8000_0000_0000_0001, 0xfedc_ba98_7654_3210];

fn cookie(text: &str) -> String {
    format!("-H 'Cookie: JSESSIONID=0123456789ABCDEF!{text}!more'")
}

/// What the product puts into a cookie.
fn issued(primary: usize, secondary: usize, (id, secret): (u8, [u64; 2])) -> Result<String> {
    let text = pair::issue(&NUMBERS, [NUMBERS[primary], NUMBERS[secondary]], 7, id, &secret)?;
    Ok(String::from_utf8(text.to_vec())?)
}

/// The node with these segment keys, and the service.
fn configured(site: &Site, keys: &str) -> (NodeConfig, ServiceConfig) {
    let node: NodeConfig = site.node();
    let node = NodeConfig { node: format!("{}{keys}", node.node), ..node };
    let mut service = site.service("web", super::vip(false), "nat", false).with(LINES);
    for (backend, number) in service.backends.iter_mut().zip(NUMBERS) {
        backend.lines.push_str(&format!("number = {number}\n"));
    }
    (node, service)
}

fn shop() -> Result<Shop> {
    let site = Site::new(Arms::Two, 3)?;
    let (node, service) = configured(&site, KEYS);
    let vip: SocketAddr = super::vip(false);
    let balancer = site.balance_with(&node, &[service])?;
    let shop = Shop { balancer, site, vip, v6: false };
    for n in 0..12 {
        shop.backend(&cookie(&format!("none{n}")), "whoami")?;
    }
    Ok(shop)
}

#[test]
fn namespace_cookie_pairs() -> Result<()> {
    let shop = shop()?;
    let names = ["be1", "be2", "be3"];
    for (primary, name) in names.into_iter().enumerate() {
        for secondary in (0..3).filter(|other| *other != primary) {
            // What the product issues is that, sealed with the first key.
            let sealed = shop.balancer.ctl(&["seal", "web", name, names[secondary]])?;
            ensure!(sealed.trim_end() == issued(primary, secondary, SECRETS[0])?, "{sealed} was issued");
            for secret in SECRETS {
                let served = shop.backend(&cookie(&issued(primary, secondary, secret)?), "whoami")?;
                ensure!(served == name, "{name} is the primary, {served} answered");
            }
        }
    }
    // What was not issued aims at nobody.
    let genuine = issued(0, 1, SECRETS[0])?;
    let before = shop.outcome("segment-forged")?;
    let mut forged = 0;
    for place in 0..genuine.len() {
        let mut text = genuine.clone().into_bytes();
        text[place] = if text[place] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(text)?;
        shop.backend(&cookie(&text), "whoami")?;
        forged += 1;
    }
    let counted = shop.outcome("segment-forged")? - before;
    ensure!(counted == forged, "of {forged} forged cookies {counted} were counted");
    // The second key takes the place of the first, under which nothing is believed any more.
    let second = KEYS.rfind("[[").map_or("", |at| &KEYS[at..]);
    let (node, service) = configured(&shop.site, second);
    shop.balancer.reload(&config::text(&node, &[service]))?;
    let before = shop.outcome("segment-forged")?;
    shop.backend(&cookie(&genuine), "whoami")?;
    ensure!(shop.outcome("segment-forged")? == before + 1, "a cookie is believed without its key");
    for (primary, name) in names.into_iter().enumerate() {
        let sealed = shop.balancer.ctl(&["seal", "web", name, names[(primary + 1) % 3]])?;
        let served = shop.backend(&cookie(sealed.trim_end()), "whoami")?;
        ensure!(served == name, "{name} is the primary, {served} answered");
    }
    // The primary is gone: the secondary serves, and nobody else.
    treat(&shop, "be1", "reject with tcp reset")?;
    for (secondary, name) in [(1, "be2"), (2, "be3")] {
        let text = issued(0, secondary, SECRETS[1])?;
        for _ in 0..3 {
            let served = shop.backend(&cookie(&text), "whoami").context("the primary refuses")?;
            ensure!(served == name, "{name} is the secondary, {served} answered");
        }
    }
    Ok(())
}
