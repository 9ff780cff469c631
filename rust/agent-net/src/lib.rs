//! agent-net
