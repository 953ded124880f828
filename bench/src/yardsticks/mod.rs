//! The parts of a path, each measured alone on the same machine in the same run: what they give is
//! what the path could reach if Eclusa itself cost nothing.

pub mod broker;
pub mod handler;
pub mod store_postgres;
pub mod store_sqlite;
