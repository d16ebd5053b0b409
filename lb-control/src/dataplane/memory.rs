//! A data plane that is a model: tables in memory, no packets.
