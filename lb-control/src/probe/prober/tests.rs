use super::*;
use crate::loopback;
use lb_core::health::{Check, Failback, HealthSpec, Policy, State, Thresholds, Way};
use std::num::NonZero;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The state that a backend is told to be in next, when it is one of those waited for.
async fn wait_for(
    reports: &mut mpsc::UnboundedReceiver<Vec<Report>>,
    wanted: impl Fn(State) -> bool,
) -> Report {
    let found = async {
        loop {
            let told = reports.recv().await.expect("the prober lives");
            let is_wanted =
                |report: &Report| report.sighting.as_ref().is_some_and(|sighting| wanted(sighting.state));
            if let Some(report) = told.into_iter().find(is_wanted) {
                return report;
            }
        }
    };
    timeout(Duration::from_secs(10), found).await.expect("in time")
}

#[tokio::test]
async fn a_backend_comes_dies_and_comes_back() {
    let listener = TcpListener::bind(loopback::any_port()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (rise, fall) = (NonZero::new(2).expect("not zero"), NonZero::new(2).expect("not zero"));
    let spec = HealthSpec {
        check: Check::Tcp,
        policy: Policy {
            interval: Duration::from_millis(50),
            fast: Duration::from_millis(10),
            slow: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            rise,
            fall,
            jitter: 10,
        },
        thresholds: Thresholds { minimum_healthy: 0, ejected: 50 },
        port: 0,
        way: Way::Direct,
        quorum: false,
        failback: Failback::Never,
    };
    let backend = Backend { service: "web".into(), backend: "a".into() };
    let (prober, mut reports) = Prober::start(Clocks::default()).expect("a thread");
    let wish = Wish {
        backend: backend.clone(),
        address,
        spec: Arc::new(spec),
        was_down: false,
        path: None,
        clock: None,
    };
    prober.watch(vec![wish]).expect("TCP needs nothing");
    wait_for(&mut reports, |state| state == State::Up).await;
    drop(listener);
    let report = wait_for(&mut reports, |state| !state.is_healthy()).await;
    let sighting = report.sighting.expect("it is watched");
    assert_eq!((report.backend, sighting.reason), (backend, Some(Failure::Refused)));
    assert!(prober.wall(sighting.since).elapsed().expect("in the past") < Duration::from_secs(10));
    let _listener = TcpListener::bind(address).await.expect("the port again");
    let report = wait_for(&mut reports, State::is_healthy).await;
    assert_eq!(report.sighting.and_then(|sighting| sighting.reason), None);
    prober.watch(Vec::new()).expect("nothing");
    while reports.recv().await.expect("the prober lives").iter().any(|report| report.sighting.is_some()) {}
    drop(prober);
    assert_eq!(timeout(Duration::from_secs(10), reports.recv()).await.expect("in time"), None);
}
