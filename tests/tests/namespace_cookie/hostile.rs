//! Requests that try to reach another session's backend.

use super::{COOKIE, Shop};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use stickleback_tests::topology::Arms;

/// Requests cut in two at every place, many at a time.
const SPLIT: &str = include_str!("split.py");
/// A client that makes its segments itself.
const SEGMENTS: &str = include_str!("segments.py");

/// Runs a script as a client; each line it prints is JSON.
fn run(shop: &Shop, name: &str, script: &str, arguments: &str) -> Result<Vec<Value>> {
    let path = shop.site.directory().join(name);
    std::fs::write(&path, script)?;
    let line = format!("python3 {} {} {} {arguments}", path.display(), shop.vip.ip(), shop.vip.port());
    let said = shop.site.client.sh_within(&line, Duration::from_secs(40))?;
    said.lines().map(|line| serde_json::from_str(line).with_context(|| said.clone())).collect()
}

/// A request in two segments, cut at every place: each time the session's backend answers, and reads the whole cookie.
fn split(arms: Arms, v6: bool) -> Result<()> {
    let shop = Shop::new(arms, v6, COOKIE)?;
    let owner = shop.backend("-H 'Cookie: SESS=split-0123456789'", "whoami")?;
    let answers = run(&shop, "split.py", SPLIT, "split-0123456789")?;
    ensure!(answers.len() > 60, "only {} places", answers.len());
    for answer in &answers {
        ensure!(answer["error"].is_null(), "{answer}");
        ensure!(answer["backend"] == owner.as_str(), "not {owner}: {answer}");
        ensure!(answer["session"] == "split-0123456789", "{answer}");
    }
    ensure!(shop.outcome("head-acknowledged")? >= 60, "heads were not acknowledged");
    Ok(())
}

#[test]
fn namespace_cookie_split_v4() -> Result<()> {
    split(Arms::Two, false)
}

#[test]
fn namespace_cookie_split_v6() -> Result<()> {
    split(Arms::One, true)
}

/// What a backend reads is what it was chosen by, in whatever segments it came; or else it is counted.
#[test]
fn namespace_cookie_segments() -> Result<()> {
    let shop = Shop::new(Arms::Two, false, COOKIE)?;
    let answers = run(&shop, "segments.py", SEGMENTS, "10.1.0.77")?;
    ensure!(answers.len() >= 8, "only {} answers", answers.len());
    let mut wrong = Vec::new();
    for answer in &answers {
        println!("{answer}");
        if answer["case"] == "none" {
            continue;
        }
        let Some(session) = answer["session"].as_str() else {
            wrong.push(format!("no answer: {answer}"));
            continue;
        };
        let owner = shop.backend(&format!("-H 'Cookie: SESS={session}'"), "whoami")?;
        if answer["backend"] != owner.as_str() {
            wrong.push(format!("{session} belongs to {owner}: {answer}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Several requests with several sessions on one connection: all go to the first one's backend, and are counted.
#[test]
fn namespace_cookie_mixed() -> Result<()> {
    let shop = Shop::new(Arms::Two, false, COOKIE)?;
    let mut other = 0;
    for n in 0..6 {
        let (first, second) = (format!("a{n}"), format!("b{n}"));
        let owner = shop.backend(&format!("-H 'Cookie: SESS={first}'"), "whoami")?;
        if shop.backend(&format!("-H 'Cookie: SESS={second}'"), "whoami")? == owner {
            continue;
        }
        other += 1;
        let before = shop.outcome("mismatch")?;
        let host = shop.vip.ip();
        let answers = shop.curl(
            &format!(
                "-H 'Cookie: SESS={first}' http://{host}/whoami --next -sS --fail --noproxy '*' -H 'Cookie: SESS={second}'"
            ),
            "whoami",
        )?;
        let answers: Vec<String> = answers.lines().map(super::backend).collect::<Result<_>>()?;
        ensure!(answers == [owner.clone(), owner], "{answers:?}");
        ensure!(shop.outcome("mismatch")? == before + 1, "another session's cookie was not counted");
    }
    ensure!(other > 0, "all twelve sessions met one backend");
    Ok(())
}
