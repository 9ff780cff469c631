//! agent-wire
