//! Every fault that Eclusa is to survive, one at a time, under load, checked with the model.

mod books;
mod broker;
mod clients;
mod demands;
mod disk;
mod operator;
mod poison;
mod process;
mod rig;
mod store;
