-- The customer's main table without its secondary indexes: they cost the writer, and logical decoding never sees them.
CREATE TABLE public.security_event (
    id uuid NOT NULL,
    type varchar(255) NOT NULL,
    description varchar(255) NOT NULL,
    tenant_id uuid NOT NULL,
    tenant_name varchar(255) NOT NULL,
    client_id varchar(255) NOT NULL,
    client_name varchar(255) NOT NULL,
    user_id uuid,
    user_name varchar(255),
    external_user_id varchar(255),
    ip_address inet,
    user_agent text,
    detail jsonb NOT NULL,
    created_at timestamp DEFAULT now() NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
DO $$
BEGIN
    FOR n IN 0..4 LOOP
        EXECUTE format('CREATE TABLE public.security_event_p%s PARTITION OF public.security_event FOR VALUES FROM (%L) TO (%L)',
                       n, current_date - 3 + n, current_date - 2 + n);
    END LOOP;
END $$;
CREATE PUBLICATION lakebed FOR TABLE public.security_event WITH (publish_via_partition_root = true);
