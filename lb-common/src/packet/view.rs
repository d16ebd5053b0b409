//! What all header views have in common.

/// Defines a view of a header's fixed part: a pointer that was checked once, with reads and writes by offset.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident of $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name(*mut u8);

        impl $name {
            /// Length of the fixed part.
            pub(crate) const LEN: usize = $len;

            /// # Safety
            /// `p` points to at least [`Self::LEN`] bytes of the frame.
            #[inline(always)]
            pub(crate) const unsafe fn new(p: *mut u8) -> Self {
                Self(p)
            }
            #[inline(always)]
            fn read<T: Copy>(self, offset: usize) -> T {
                debug_assert!(offset + size_of::<T>() <= Self::LEN);
                // SAFETY: checked by `new`; every offset here is inside the fixed part.
                unsafe { $crate::packet::memory::get(self.0.add(offset)) }
            }
            #[inline(always)]
            fn write<T: Copy>(self, offset: usize, value: T) {
                debug_assert!(offset + size_of::<T>() <= Self::LEN);
                // SAFETY: as for reads.
                unsafe { $crate::packet::memory::put(self.0.add(offset), value) }
            }
        }
    };
}
pub(super) use view;
