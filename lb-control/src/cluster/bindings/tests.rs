//! Two nodes with a data plane each.
