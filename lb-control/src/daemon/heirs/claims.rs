//! When a node tells the hosts of the network whose the source addresses are.

/// Looks for which a node's own addresses may wait for what others have of its connections.
const WAIT: u32 = 10;
/// Looks at which the hosts are told.
const LOUD: u32 = 5;

/// Where a node stands with its claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claims {
    /// Others may have connections of this node, and its addresses: for so many looks more.
    Waiting(u32),
    /// So many times more.
    Telling(u32),
    /// All know.
    Quiet,
}

/// What the hosts are told at one look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// That addresses of nodes that died are here.
    Inherited,
    /// That its own are, too.
    All,
}

impl Claims {
    /// Whether others have connections of this node is not known yet.
    pub(super) const fn new() -> Self {
        Self::Waiting(WAIT)
    }

    /// Whether it is waited for what others have.
    pub(super) const fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    /// Who is connected anew may have had addresses of this node, or the other way round.
    ///
    /// Whoever comes and goes while it is waited makes nobody wait longer.
    pub(super) const fn meet(&mut self) {
        match self {
            Self::Waiting(_) => {}
            Self::Telling(_) | Self::Quiet => *self = Self::Waiting(WAIT),
        }
    }

    /// This node has another one's addresses from now on.
    pub(super) const fn inherit(&mut self) {
        match self {
            Self::Waiting(_) => {}
            Self::Telling(_) | Self::Quiet => *self = Self::Telling(LOUD),
        }
    }

    /// What is to be told now; `has_heard_all` = what others have of this node's connections is here.
    pub(super) const fn look(&mut self, has_heard_all: bool) -> Told {
        match *self {
            Self::Waiting(left) if left > 0 && !has_heard_all => {
                *self = Self::Waiting(left - 1);
                Told::Inherited
            }
            Self::Waiting(_) => {
                *self = Self::Telling(LOUD - 1);
                Told::All
            }
            Self::Telling(left) if left > 0 => {
                *self = Self::Telling(left - 1);
                Told::All
            }
            Self::Telling(_) | Self::Quiet => {
                *self = Self::Quiet;
                Told::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_when_all_is_here_and_then_for_a_while() {
        let mut claims = Claims::new();
        assert_eq!(claims.look(false), Told::Inherited);
        for _ in 0..LOUD {
            assert_eq!(claims.look(true), Told::All);
        }
        assert_eq!(claims.look(false), Told::Nothing);
        claims.inherit();
        assert_eq!(claims.look(false), Told::All, "nobody has anything of this node's");
        claims.meet();
        assert_eq!(claims.look(false), Told::Inherited, "who comes may have");
    }

    #[test]
    fn nobody_waits_for_ever_for_who_does_not_come_or_comes_and_goes() {
        for flaps in [false, true] {
            let mut claims = Claims::new();
            let waited = (0..).take_while(|_| {
                if flaps {
                    claims.meet();
                }
                claims.look(false) == Told::Inherited
            });
            assert_eq!(waited.take(1_000).count(), WAIT as usize, "flaps: {flaps}");
        }
    }
}
