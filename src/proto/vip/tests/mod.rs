//! Behaviours of the room.
