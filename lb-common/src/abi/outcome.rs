//! Why a packet did not simply go to a backend.

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])* $name:ident = $n:literal, $text:literal, $drop:literal;)*) => {
        /// What became of a packet that was not forwarded; also the index of its counter.
        ///
        /// Forwarded packets are counted under their service and backend, all others exactly once here.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Outcome {
            $($(#[doc = $doc])* $name = $n,)*
        }

        impl Outcome {
            /// Every outcome.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in metrics and tables.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the frame is dropped, and not passed, sent on or made an answer.
            pub const fn is_drop(self) -> bool {
                match self { $(Self::$name => $drop,)* }
            }
        }
    };
}

outcomes! {
    /// For no service: passed to the stack.
    NotOurs = 0, "not-ours", false;
    /// Not IP, or IP that concerns no service: passed to the stack.
    NotIp = 1, "not-ip", false;
    /// An echo request to a VIP, answered.
    EchoAnswered = 2, "echo-answered", false;
    /// A TCP packet that nobody owns, answered with a reset.
    ResetSent = 3, "reset-sent", false;
    /// Too large for the way to the backend, answered with an ICMP error.
    TooBigSent = 4, "too-big-sent", false;
    /// Hop limit used up, answered with an ICMP error.
    TimeExceededSent = 5, "time-exceeded-sent", false;
    /// A SYN for a service with delayed binding, answered with a SYN cookie.
    SynAnswered = 6, "syn-answered", false;
    /// A segment of an incomplete request head, acknowledged by the balancer.
    HeadAcknowledged = 7, "head-acknowledged", false;
    /// Headers cut short, lengths that contradict each other, or a sender to answer that cannot be one.
    Malformed = 8, "malformed", true;
    /// More than two VLAN tags or more extension headers than are followed.
    TooDeep = 9, "too-deep", true;
    /// A fragment whose first one was not seen, or whose affinity needs ports.
    Fragment = 10, "fragment", true;
    /// No backend of the service may take it.
    NoBackend = 11, "no-backend", true;
    /// The backend's next hop is not resolved.
    NoHop = 12, "no-hop", true;
    /// No room in the flow table: TCP is answered with a reset, anything else lost.
    FlowsFull = 13, "flows-full", true;
    /// No free source port.
    PortsExhausted = 14, "ports-exhausted", true;
    /// The frame had no room for the header.
    NoRoom = 15, "no-room", true;
    /// An answer was due but over the rate of answers.
    AnswerLimited = 16, "answer-limited", true;
    /// An ICMP message for a VIP that is of no use to a backend.
    IcmpIgnored = 17, "icmp-ignored", true;
    /// Redirecting failed: the interface is not in the device map.
    RedirectFailed = 18, "redirect-failed", true;
    /// A tail call failed: programs are being replaced.
    TailCall = 19, "tail-call", true;
    /// Hop limit used up in a packet that must not be answered.
    HopLimit = 20, "hop-limit", true;
    /// A mid-flow packet while tables are being replaced.
    Migrating = 21, "migrating", true;
    /// Another CPU changed the flow while the packet was being handled.
    Raced = 22, "raced", true;
    /// The last segment of a handshake that the balancer answered: it has served its purpose.
    HandshakeDone = 23, "handshake-done", true;
    /// A client's segment that is held until the backend can take it.
    Held = 24, "held", true;
    /// A backend's segment that was for the balancer itself.
    Swallowed = 25, "swallowed", true;
    /// A segment ahead of a connection's first one: its sender sends it again.
    Early = 26, "early", true;
    /// A held segment cannot be kept or is not in order: its sender sends it again.
    NotHeld = 27, "not-held", true;
    /// A segment turned round towards the backend: acknowledgement, held bytes, or the next try.
    TurnedRound = 28, "turned-round", false;
    /// The end of a connection that never asked for anything, or a sign of life of one: answered.
    IdleAnswered = 29, "idle-answered", false;
    /// A client's reset of a connection that no backend knows of.
    GivenUp = 30, "given-up", true;
    /// Of a flow that this node does not know: sent to the next node of the cluster.
    Asked = 31, "asked", false;
    /// Counted beside the forwarding: a binding was not made because the table is full.
    BindingsFull = 32, "bindings-full", false;
    /// Counted beside the forwarding: a binding was not made because of the service's rate.
    BindingRate = 33, "binding-rate", false;
    /// Counted beside the forwarding: a binding was not made because of its source prefix's quota.
    BindingQuota = 34, "binding-quota", false;
    /// Counted beside the forwarding: the event ring was full.
    EventLost = 35, "event-lost", false;
    /// Counted beside the forwarding: a half-open flow was evicted by a newer one.
    HalfOpenEvicted = 36, "half-open-evicted", false;
    /// Counted beside the forwarding: the request had no cookie of that name.
    NoCookie = 37, "no-cookie", false;
    /// Counted beside the forwarding: the request head is larger than is looked at; fallback.
    HeadTooLong = 38, "head-too-long", false;
    /// Counted beside the forwarding: not HTTP/1; fallback.
    NotHttp = 39, "not-http", false;
    /// Counted beside the forwarding: no hold was free; fallback, or the client has to send again.
    HoldsFull = 40, "holds-full", false;
    /// Counted beside the forwarding: a sealed segment whose MAC is wrong; fallback.
    SegmentForged = 41, "segment-forged", false;
    /// Counted beside the forwarding: a segment that names no server of the service.
    SegmentUnknown = 42, "segment-unknown", false;
    /// Counted beside the forwarding: another session's cookie on the connection.
    Mismatch = 43, "mismatch", false;
    /// Counted beside the forwarding: a session learnt from a response.
    Learnt = 44, "learnt", false;
    /// Counted beside the forwarding: a response head that could not be read to its end.
    LearnMissed = 45, "learn-missed", false;
    /// Counted beside the forwarding: a backend refused the balancer's SYN, the next one was tried.
    BackendRefused = 46, "backend-refused", false;
    /// Counted beside the forwarding: a backend did not answer the balancer's SYN, the next one was tried.
    BackendSilent = 47, "backend-silent", false;
    /// Counted beside the answer: an acknowledgement without a valid SYN cookie.
    SynCookieWrong = 48, "syn-cookie-wrong", false;
    /// Counted beside the forwarding: a QUIC connection id without a server of the service; fallback.
    QuicUnroutable = 49, "quic-unroutable", false;
    /// Counted beside the forwarding: the server that a packet names is down, the next one was taken.
    ServerDown = 50, "server-down", false;
    /// Counted beside the forwarding: the payload ends before the segment does; fallback.
    PayloadShort = 51, "payload-short", false;
    /// Counted beside the forwarding: several cookies of that name with different values; the first one counts.
    CookieTwice = 52, "cookie-twice", false;
    /// Counted beside what becomes of it: another node did not know the packet's flow, this one does.
    VisitKnown = 53, "visit-known", false;
    /// Another node asked, and this one does not know the packet's flow either: sent on, or back.
    VisitPassed = 54, "visit-passed", false;
    /// Of a flow that this node does not know, over the rate at which others are asked.
    AskLimited = 55, "ask-limited", true;
    /// Counted beside the forwarding: a new session's backend had all the connections it may have, another one was taken.
    LimitPassed = 56, "limit-passed", false;
    /// Counted beside the refusal: all backends that take new sessions had all the connections they may have.
    LimitsReached = 57, "limits-reached", false;
    /// A request whose session this node does not know: the packet became a question to the other nodes.
    SessionAsked = 58, "session-asked", false;
    /// Another node asked for the backend of a session that this one knows: answered.
    SessionAnswered = 59, "session-answered", false;
    /// Counted beside the forwarding: another node told the session's backend.
    SessionTold = 60, "session-told", false;
}

impl Outcome {
    /// Entries of the outcome map.
    pub const COUNT: u32 = 64;

    /// Whether the packet was lost to its sender: not what ends here because it has done what it was sent for.
    pub const fn is_lost(self) -> bool {
        self.is_drop() && !matches!(self, Self::HandshakeDone | Self::Held | Self::GivenUp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_that_did_what_it_was_sent_for() {
        for done in [Outcome::HandshakeDone, Outcome::Held, Outcome::GivenUp] {
            assert!(done.is_drop() && !done.is_lost(), "{}", done.name());
        }
        assert!(Outcome::NoBackend.is_lost());
        assert!(!Outcome::EchoAnswered.is_lost());
    }
}
