//! Steering manifests for HLS and DASH.
