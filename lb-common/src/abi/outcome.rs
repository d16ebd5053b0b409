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

            /// Whether the packet was lost to its sender.
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
}

impl Outcome {
    /// Entries of the outcome map.
    pub const COUNT: u32 = 64;
}
