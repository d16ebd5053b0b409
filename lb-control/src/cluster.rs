//! Several nodes as one: what a node is, how nodes talk, and what each must not forget.

pub mod journal;
