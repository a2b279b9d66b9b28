//! The grammar and what the prompt prints, by example and by property.

mod grammar;
mod prints;
