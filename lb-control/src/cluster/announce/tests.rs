use super::*;
use std::process::Command;
use tokio::time::sleep;

const INTERFACE: &str = "t-announce";
const SHORT: Duration = Duration::from_secs(2);

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a test in a network namespace of its own, which ends with its thread; not without root.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // SAFETY: asks who we are.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: moves this thread alone, which ends here.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        ip(&format!("link add {INTERFACE} type veth peer name t-other"));
        ip("link set t-other up");
        ip(&format!("link set {INTERFACE} up"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
    thread.join().expect("passed");
}

fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

fn shown() -> String {
    ip(&format!("address show dev {INTERFACE}"))
}

#[test]
fn addresses_stay_while_they_are_renewed_and_end_by_themselves() {
    in_namespace(|| async {
        let vips = addresses(&["192.0.2.80", "2001:db8::80"]);
        let mut announcer = Announcer::open(INTERFACE, SHORT).await.expect("opened");
        for _ in 0..5 {
            announcer.announce(&vips).await.expect("announced");
            sleep(Duration::from_secs(1)).await;
            let now = shown();
            assert!(now.contains("192.0.2.80/32") && now.contains("2001:db8::80/128"), "{now}");
            let vip = |line: &&str| line.contains("192.0.2.80") || line.contains("2001:db8::80");
            assert!(!now.lines().filter(vip).any(|line| line.contains("tentative")), "{now}");
            assert!(now.contains("valid_lft 2sec") || now.contains("valid_lft 1sec"), "{now}");
        }
        // As if the daemon were killed.
        drop(announcer);
        sleep(SHORT * 2).await;
        let now = shown();
        assert!(!now.contains("192.0.2.80") && !now.contains("2001:db8::80"), "{now}");
    });
}

#[test]
fn what_is_not_wanted_any_more_is_taken_back_and_what_others_put_there_stays() {
    in_namespace(|| async {
        ip(&format!("address add 192.0.2.1/24 dev {INTERFACE}"));
        ip(&format!("address add 192.0.2.81/32 dev {INTERFACE}"));
        let mut announcer = Announcer::open(INTERFACE, LIFETIME).await.expect("opened");
        announcer.announce(&addresses(&["192.0.2.80", "192.0.2.81"])).await.expect("announced");
        assert!(shown().contains("192.0.2.80/32"));
        // Another instance takes over what an earlier one left.
        let mut announcer = Announcer::open(INTERFACE, LIFETIME).await.expect("opened");
        announcer.announce(&BTreeSet::new()).await.expect("announced");
        let now = shown();
        assert!(!now.contains("192.0.2.80"), "{now}");
        assert!(now.contains("192.0.2.1/24") && now.contains("192.0.2.81/32"), "{now}");
        let lines: Vec<&str> = now.lines().skip_while(|line| !line.contains("192.0.2.81/32")).collect();
        assert!(lines[1].contains("valid_lft forever"), "{now}");
    });
}

#[test]
fn nothing_is_announced_before_the_node_is_ready() {
    in_namespace(|| async {
        let announcer = Announcer::open(INTERFACE, SHORT).await.expect("opened");
        let (ready, is_ready) = watch::channel(false);
        let (vips, wanted) = watch::channel(addresses(&["192.0.2.80"]));
        let following = tokio::spawn(follow(announcer, is_ready, wanted));
        sleep(Duration::from_millis(500)).await;
        assert!(!shown().contains("192.0.2.80"));
        ready.send_replace(true);
        sleep(SHORT * 2).await;
        assert!(shown().contains("192.0.2.80"), "it is not renewed");
        // None healthy: not announced.
        vips.send_replace(BTreeSet::new());
        sleep(Duration::from_millis(500)).await;
        assert!(!shown().contains("192.0.2.80"));
        vips.send_replace(addresses(&["192.0.2.80"]));
        sleep(Duration::from_millis(500)).await;
        assert!(shown().contains("192.0.2.80"));
        drop(ready);
        following.await.expect("ended");
        assert!(!shown().contains("192.0.2.80"));
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    in_namespace(|| async {
        let error = Announcer::open("t-nowhere", LIFETIME).await.expect_err("it is not there");
        assert!(error.to_string().contains("t-nowhere"), "{error}");
    });
}
