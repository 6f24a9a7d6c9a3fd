//! One bench per speed claim
