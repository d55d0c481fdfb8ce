//! Floor 1: configuration: as written → as meant → difference.

pub mod settings;
