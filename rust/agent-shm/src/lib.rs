//! agent-shm
