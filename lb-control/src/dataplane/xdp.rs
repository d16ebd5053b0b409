//! The data plane in the kernel.
