//! Where an edge fetches: origins, parents and siblings, their health, retries within a budget, S3 signing.
