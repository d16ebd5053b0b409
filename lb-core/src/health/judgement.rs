//! The backends of a pool together.

use super::{State, Thresholds, Voice};
use core::time::Duration;

/// A backend of a pool, as its monitor sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its state; `None` = nobody looks at it, which counts as healthy.
    pub state: Option<State>,
    /// Since when.
    pub since: Duration,
    /// Whether an administrator lets it take new sessions at all; others do not count when shares are made.
    pub is_wanted: bool,
}

/// What became of a pool.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Judgement {
    /// Whether each backend is used, in the order they were given.
    pub used: Vec<bool>,
    /// Too few are healthy: all are used.
    pub panics: bool,
    /// Backends that only traffic spoke against and that stay, since too many others went so.
    pub spared: usize,
}

/// Which backends of a pool are used.
pub fn judge(thresholds: Thresholds, backends: &[Standing]) -> Judgement {
    let healthy = |standing: &Standing| standing.state.is_none_or(State::is_healthy);
    let wanted = backends.iter().filter(|standing| standing.is_wanted).count();
    let mut used: Vec<bool> = backends.iter().map(healthy).collect();

    // Whoever went first is out; the order among those that went at once is that of the pool.
    // One that probes find well is on its way back, and no probe has spoken against it either.
    let of_traffic =
        |state| matches!(state, Some(State::Down(Voice::Traffic) | State::Rising(Voice::Traffic, _)));
    let mut by_traffic: Vec<usize> = (0..backends.len()).filter(|&i| of_traffic(backends[i].state)).collect();
    by_traffic.sort_by_key(|&i| backends[i].since);
    let room = (wanted * usize::from(thresholds.ejected) / 100).max(1);
    let spared = by_traffic.split_off(room.min(by_traffic.len()));
    spared.iter().for_each(|&i| used[i] = true);

    let left = backends.iter().zip(&used).filter(|(standing, used)| standing.is_wanted && **used).count();
    let least = match usize::from(thresholds.minimum_healthy) {
        // One is enough however many there are.
        few @ (0 | 1) => few,
        share => (wanted * share).div_ceil(100),
    };
    let panics = left < wanted && left < least;
    if panics {
        used.fill(true);
    }
    Judgement { used, panics, spared: spared.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Option<State> = Some(State::Down(Voice::Probe));
    const TRAFFIC: Option<State> = Some(State::Down(Voice::Traffic));
    const UP: Option<State> = Some(State::Up);
    const THRESHOLDS: Thresholds = Thresholds { minimum_healthy: 1, ejected: 50 };

    fn pool(states: &[Option<State>]) -> Vec<Standing> {
        let standing = |(i, &state)| Standing { state, since: Duration::from_secs(i), is_wanted: true };
        (0..).zip(states).map(standing).collect()
    }

    #[test]
    fn the_dead_are_not_used_as_long_as_somebody_lives() {
        let judgement = judge(THRESHOLDS, &pool(&[UP, PROBE, None, Some(State::New)]));
        assert_eq!(judgement.used, [true, false, true, true]);
        assert!(!judgement.panics && judgement.spared == 0);
    }

    #[test]
    fn all_are_used_when_nobody_lives_unless_that_is_forbidden() {
        let dead = pool(&[PROBE, PROBE, TRAFFIC]);
        let judgement = judge(THRESHOLDS, &dead);
        assert_eq!((judgement.used, judgement.panics), (vec![true; 3], true));
        let never = judge(Thresholds { minimum_healthy: 0, ..THRESHOLDS }, &dead);
        assert_eq!((never.used, never.panics), (vec![false; 3], false));
        assert_eq!(judge(THRESHOLDS, &[]), Judgement::default());
    }

    #[test]
    fn one_percent_means_one_backend_in_pools_of_any_size() {
        for size in [2, 100, 101, 4_096] {
            let mut backends = pool(&vec![PROBE; size]);
            assert!(judge(THRESHOLDS, &backends).panics, "{size}");
            backends[size - 1].state = UP;
            let judgement = judge(THRESHOLDS, &backends);
            assert!(!judgement.panics, "{size}");
            assert_eq!(judgement.used.iter().position(|&used| used), Some(size - 1));
        }
        // Two percent of 101 are three.
        let two = Thresholds { minimum_healthy: 2, ..THRESHOLDS };
        let mut backends = pool(&[PROBE; 101]);
        (0..2).for_each(|i| backends[i].state = UP);
        assert!(judge(two, &backends).panics);
        backends[2].state = UP;
        assert!(!judge(two, &backends).panics);
    }

    #[test]
    fn the_share_is_that_of_wanted_backends() {
        let half = Thresholds { minimum_healthy: 50, ..THRESHOLDS };
        let mut backends = pool(&[UP, UP, PROBE, PROBE]);
        assert!(!judge(half, &backends).panics, "exactly half is enough");
        // Draining: what is left is one of three.
        backends[0].is_wanted = false;
        assert!(judge(half, &backends).panics);
        backends[2].is_wanted = false;
        assert!(!judge(half, &backends).panics);
    }

    #[test]
    fn traffic_alone_throws_out_its_share_and_no_more_the_first_first() {
        let mut backends = pool(&[TRAFFIC, TRAFFIC, TRAFFIC, UP]);
        let judgement = judge(THRESHOLDS, &backends);
        assert_eq!((judgement.used, judgement.spared), (vec![false, false, true, true], 1));
        backends[0].since = Duration::from_secs(9);
        assert_eq!(judge(THRESHOLDS, &backends).used, [true, false, false, true]);
        // What a probe has found does not count there.
        backends[1].state = PROBE;
        assert_eq!(judge(THRESHOLDS, &backends).used, [false, false, false, true]);
        // Who passes probes again is out by nothing but traffic, too.
        let mut rising = pool(&[TRAFFIC, TRAFFIC, TRAFFIC, UP]);
        rising[2].state = Some(State::Rising(Voice::Traffic, core::num::NonZero::<u16>::MIN));
        assert_eq!(judge(THRESHOLDS, &rising).used, [false, false, true, true]);
        rising[2].state = Some(State::Rising(Voice::Probe, core::num::NonZero::<u16>::MIN));
        assert_eq!(judge(THRESHOLDS, &rising).used, [false, false, false, true]);
        // One may always go.
        let none = Thresholds { ejected: 0, ..THRESHOLDS };
        assert_eq!(judge(none, &pool(&[TRAFFIC, TRAFFIC, UP])).used, [false, true, true]);
    }
}
