//! agent-py
