//! The reconciler over the kernel's tables.
