//! A backend that comes back gets its share bit by bit.

use super::{SOON, Shop};
use anyhow::{Context, Result, ensure};
use stickleback_tests::topology::load;
use stickleback_tests::topology::process::eventually;

#[test]
fn namespace_load_slow_start() -> Result<()> {
    let mut shop = Shop::new("health = \"tcp\"\nslow-start = \"30s\"", "")?;
    let state = |shop: &Shop, wanted: &str| {
        eventually(SOON, || {
            let row = shop.backend("be2")?;
            ensure!(row["health"]["state"] == wanted, "be2 is {row}, not {wanted}");
            Ok(())
        })
    };
    state(&shop, "healthy")?;
    ensure!(shop.backend("be2")?["load"]["ramp_percent"].is_null(), "it was not down");
    let bound = shop.site.clients_from(false, 1, 90);
    let before = load::each(&shop.site.client, shop.vip, &bound)?;
    shop.site.server(1).kill();
    state(&shop, "down")?;
    let moved = load::each(&shop.site.client, shop.vip, &bound)?;
    ensure!(before.values().any(|name| name == "be2") && !moved.values().any(|name| name == "be2"));
    *shop.site.server(1) = shop.site.web(1)?;
    state(&shop, "healthy")?;
    let percent =
        |shop: &Shop| -> Result<Option<u64>> { Ok(shop.backend("be2")?["load"]["ramp_percent"].as_u64()) };
    let first = percent(&shop)?.context("it has its whole share at once")?;
    // New sessions, each with one request.
    let share = |from: u16| -> Result<usize> {
        let answers = load::each(&shop.site.client, shop.vip, &shop.site.clients_from(false, from, 240))?;
        Ok(answers.values().filter(|name| *name == "be2").count())
    };
    let (early, then) = (share(1_000)?, percent(&shop)?);
    println!("from {first} % to {then:?}: {early} of 240 sessions");
    // With half of its weight a fifth of the sessions is due, 48, with all of it 80.
    if then.is_some_and(|percent| percent <= 50) {
        ensure!(early < 68, "{early} of 240 sessions with at most {then:?} % of the weight");
    }
    let mut last = first;
    eventually(SOON * 3, || match percent(&shop)? {
        Some(percent) => {
            ensure!(percent >= last, "its share fell from {last} to {percent}");
            last = percent;
            anyhow::bail!("it has {percent} % of its share")
        }
        None => Ok(()),
    })?;
    ensure!(last > first, "its share never grew");
    let late = share(2_000)?;
    println!("with all of it: {late} of 240 sessions");
    ensure!((50..110).contains(&late), "{late} of 240 sessions with the whole weight");
    ensure!(
        load::each(&shop.site.client, shop.vip, &bound)? == moved,
        "bound sessions moved while the share grew"
    );
    Ok(())
}
