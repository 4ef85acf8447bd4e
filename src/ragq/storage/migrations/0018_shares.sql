-- A tenant's part of the workers, and the most of its jobs of a queue that run at once; without the latter there is no limit.
ALTER TABLE tenants
    ADD COLUMN weight double precision NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0.1 AND 100),
    ADD COLUMN max_running integer CHECK (max_running BETWEEN 1 AND 10000);
