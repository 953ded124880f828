//! The catalog of the captured PostgreSQL: what the server is, its tables, the publication and the slot.

mod own;
pub mod publication;
pub mod server;
pub mod slot;
mod table;
mod types;

pub use table::{CapturedTable, TableColumn, TableName, look_at, names_of, operator_schemas};
