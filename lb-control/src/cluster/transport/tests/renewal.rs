//! What the authority makes new, and when it holds.

use super::*;

/// Puts a certificate of former times in the place of a machine's own.
fn aged(machine: &Machine, authority: &Machine, days: u64) -> Identity {
    let own = machine.home().identity().expect("readable").expect("a member");
    let authority = Authority::open(&authority.home()).expect("readable").expect("its key");
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    let request = own.request().expect("a request");
    let certificate = authority.certify(own.subject, &request, then).expect("a certificate");
    let text = crate::cluster::home::pem(&certificate);
    machine.home().write(crate::cluster::home::Name::Certificate, text.as_bytes()).expect("written");
    machine.home().identity().expect("readable").expect("a member")
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_made_new_while_the_authority_is_there_and_warned_of_while_it_is_not() {
    let (first, second) = (Machine::found(), Machine::new());
    let a = first.start();
    second.join(&first, &a.token()).await.expect("joined");
    a.stop().await;
    let old = aged(&second, &first, 300);
    let b = second.start();
    let (end, is_overdue) = b.transport.certificate_end();
    assert!(is_overdue && end < 70 * 86_400 + unix_now(), "the authority is away: the old one stays");
    // The authority's own is old as well.
    let founder = aged(&first, &first, 200);
    assert!(founder.is_due(SystemTime::now()) && !founder.is_overdue(SystemTime::now()));
    let a = first.start();
    let renewed = |running: &Running| running.transport.certificate_end().0 > unix_now() + 360 * 86_400;
    timeout(SOON * 3, async {
        while !(renewed(&a) && renewed(&b)) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("both have new ones");
    let kept = second.home().identity().expect("readable").expect("a member");
    assert_eq!(kept.subject, old.subject, "id and role stay");
    assert_ne!(kept.certificate, old.certificate);
    assert_eq!(kept.key.public_key_raw(), old.key.public_key_raw());
    // It is good for connections.
    b.stop().await;
    let b = second.start();
    let id = b.transport.id();
    timeout(SOON, async {
        while !a.is_connected(id) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("connected with the new one");
    for running in [a, b] {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_certificate_that_is_not_its_own() {
    let nodes = cluster(1).await;
    let (a, b) = (&nodes[0].1.transport.shared, &nodes[1].1.transport.shared);
    let request = b.renewal_request().expect("a request");
    assert_eq!(b.renew(b.identity().subject, &request).expect("an answer"), None, "only the authority does");
    let stranger =
        crate::cluster::identity::Subject { id: NodeId::new(77).expect("an id"), role: Role::Node };
    assert_eq!(a.renew(stranger, &request).expect("an answer"), None, "no member");
    // Signed for another member.
    let other = a.renew(a.identity().subject, &request).expect("an answer").expect("a certificate");
    assert!(b.take_certificate(&other).is_err());
    // Signed by another authority.
    let elsewhere = cluster(0).await;
    let theirs = Authority::open(&elsewhere[0].0.home()).expect("readable").expect("its key");
    let der = crate::cluster::identity::unhex(&request).expect("digits");
    let forged = theirs.certify(b.identity().subject, &der, SystemTime::now()).expect("a certificate");
    let before = b.identity().certificate.clone();
    assert!(b.take_certificate(&crate::cluster::identity::hex(&forged)).is_err());
    assert_eq!(b.identity().certificate, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_does_not_take_does_not_hold_until_it_does() {
    let nodes = cluster(1).await;
    let (first, second) = (&nodes[0], &nodes[1]);
    let file = second.0.state.path().join("cluster/secrets.json");
    std::fs::remove_file(&file).expect("it is there");
    std::fs::create_dir(&file).expect("in its place");
    let before = second.1.transport.keyring().borrow().as_ref().map(|keyring| keyring.content().serial());
    first.1.transport.rotate(Rotation::Segment).expect("rotated");
    sleep(Duration::from_secs(2)).await;
    let shown = || second.1.transport.keyring().borrow().as_ref().map(|keyring| keyring.content().serial());
    assert_eq!(shown(), before, "a restart would lose it");
    assert!(second.1.is_connected(first.1.transport.id()), "the connection stays");
    std::fs::remove_dir(&file).expect("removed");
    timeout(SOON, async {
        while shown() == before {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("tried again");
    assert!(file.is_file());
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}
