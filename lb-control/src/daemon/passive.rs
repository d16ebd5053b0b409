//! What the data plane meets when connections are made, told to those who check.
//!
//! Only what a backend makes of SYNs of the balancer's own may change its state. What clients can cause, and that is every other
//! sign, leads to a probe at once and to nothing else.

use super::complaint::Complaint;
use crate::admin::error::chain;
use crate::probe::{Backend, Prober};
use crate::reconcile::{Handle, QueryError, VitalsRow};
use lb_common::abi::Vitals;
use std::collections::HashMap;
use std::time::Duration;
use tracing::warn;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks at what is noted of backends, for as long as the reconciler lives.
pub(super) async fn watch(reconciler: Handle, prober: Prober) {
    let (mut signs, mut complaint) = (Signs::default(), Complaint::default());
    loop {
        tokio::time::sleep(LOOK).await;
        match reconciler.vitals().await {
            Ok(rows) => {
                complaint.settle();
                for (backend, sign) in signs.since(rows) {
                    match sign {
                        Sign::Unanswered => prober.unanswered(backend),
                        Sign::Suspected => prober.suspect(backend),
                    }
                }
            }
            Err(QueryError::Gone(_)) => return,
            Err(error) => {
                if complaint.is_news(chain(&error)) {
                    warn!(error = chain(&error), "whose connections fail is not known");
                }
            }
        }
    }
}

/// What a look says of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sign {
    /// It refused SYNs of the balancer's own, and has taken no connection since, or left them unanswered and took none since the
    /// last look.
    Unanswered,
    /// Something else failed, or it takes some connections and others not.
    Suspected,
}

/// What was noted at the last look.
#[derive(Default)]
struct Signs(HashMap<Backend, ((u16, u16), Vitals)>);

impl Signs {
    /// What has happened since the last look.
    fn since(&mut self, rows: Vec<VitalsRow>) -> Vec<(Backend, Sign)> {
        let mut found = Vec::new();
        let mut now = HashMap::with_capacity(rows.len());
        for VitalsRow { service, backend, place, vitals } in rows {
            let name = Backend { service, backend };
            let before = self.0.get(&name).filter(|(before, _)| *before == place);
            if let Some(sign) = before.and_then(|(_, before)| sign(before, &vitals)) {
                found.push((name.clone(), sign));
            }
            now.insert(name, (place, vitals));
        }
        self.0 = now;
        found
    }
}

fn sign(before: &Vitals, now: &Vitals) -> Option<Sign> {
    let (refused, silent) = (before.refused != now.refused, before.silent != now.silent);
    if !refused && !silent {
        return (before.suspected != now.suspected).then_some(Sign::Suspected);
    }
    // Sessions that were refused go elsewhere, so there may be one refusal only, right after connections that were taken.
    let refuses = refused && now.answered > now.accepted;
    let is_silent = silent && before.accepted == now.accepted;
    Some(if refuses || is_silent { Sign::Unanswered } else { Sign::Suspected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(backend: &str, generation: u16, vitals: Vitals) -> VitalsRow {
        VitalsRow { service: "web".into(), backend: backend.into(), place: (3, generation), vitals }
    }

    fn told(signs: &mut Signs, generation: u16, vitals: Vitals) -> Option<Sign> {
        let found = signs.since(vec![row("a", generation, vitals)]);
        found.first().map(|(name, sign)| {
            assert_eq!((name.service.as_str(), name.backend.as_str(), found.len()), ("web", "a", 1));
            *sign
        })
    }

    #[test]
    fn only_own_connections_that_all_fail_count_as_a_failure() {
        let mut signs = Signs::default();
        let mut vitals = Vitals { refused: 7, silent: 1, suspected: 3, accepted: 5, ..Vitals::default() };
        assert_eq!(told(&mut signs, 1, vitals), None, "what was before the first look says nothing");
        assert_eq!(told(&mut signs, 1, vitals), None);
        (vitals.refused, vitals.answered) = (vitals.refused + 1, 6);
        assert_eq!(told(&mut signs, 1, vitals), Some(Sign::Unanswered));
        (vitals.refused, vitals.accepted, vitals.answered) = (vitals.refused + 1, 7, 8);
        assert_eq!(told(&mut signs, 1, vitals), Some(Sign::Unanswered), "its last word was a refusal");
        (vitals.refused, vitals.accepted, vitals.answered) = (vitals.refused + 1, 9, 9);
        assert_eq!(told(&mut signs, 1, vitals), Some(Sign::Suspected), "its last word was not");
        vitals.silent += 2;
        assert_eq!(told(&mut signs, 1, vitals), Some(Sign::Unanswered));
        (vitals.silent, vitals.accepted) = (vitals.silent + 1, 10);
        assert_eq!(told(&mut signs, 1, vitals), Some(Sign::Suspected), "it lives, but is not well");
        vitals.suspected += 1;
        assert_eq!(told(&mut signs, 1, vitals), Some(Sign::Suspected), "clients can cause this");
        vitals.connections += 1;
        assert_eq!(told(&mut signs, 1, vitals), None);
    }

    #[test]
    fn what_an_earlier_owner_of_the_slot_did_does_not_count() {
        let mut signs = Signs::default();
        let vitals = Vitals { refused: 7, ..Vitals::default() };
        assert_eq!(told(&mut signs, 1, vitals), None);
        assert_eq!(told(&mut signs, 2, Vitals::default()), None);
        let refused = Vitals { refused: 1, answered: 1, ..vitals };
        assert_eq!(told(&mut signs, 2, refused), Some(Sign::Unanswered));
        assert!(signs.since(Vec::new()).is_empty());
        assert_eq!(told(&mut signs, 2, Vitals { refused: 2, ..vitals }), None, "it was away in between");
    }
}
