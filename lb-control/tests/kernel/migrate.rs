//! Changes of table sizes and schemas.
