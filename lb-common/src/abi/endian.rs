//! Integers in network byte order.

macro_rules! big_endian {
    ($name:ident, $int:ty, $doc:literal) => {
        #[doc = $doc]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
        pub struct $name(pub $int);

        impl $name {
            /// From a number in host order.
            #[inline(always)]
            pub const fn new(host: $int) -> Self {
                Self(host.to_be())
            }
            /// The number in host order.
            #[inline(always)]
            pub const fn host(self) -> $int {
                <$int>::from_be(self.0)
            }
            /// The integer whose memory bytes are in network order.
            #[inline(always)]
            pub const fn raw(self) -> $int {
                self.0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}", self.host())
            }
        }
    };
}

big_endian!(Be16, u16, "A 16-bit number whose memory bytes are in network order.");
big_endian!(Be32, u32, "A 32-bit number whose memory bytes are in network order.");

super::pod!(Be16: 2, Be32: 4);
