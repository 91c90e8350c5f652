-- The first customer's tables in database idpserver: those of the identity provider idp-server, column for column.
-- Runs as superuser. `idp` owns the tables and runs pg_partman, so the leaves are its own; `idp_app_user` is the
-- application, held to its tenant by row-level security. Both sign in over the socket only: they have no password here.

CREATE ROLE idp LOGIN;
CREATE ROLE idp_app_user LOGIN;
GRANT CREATE, TEMPORARY ON DATABASE idpserver TO idp;
GRANT USAGE, CREATE ON SCHEMA public TO idp;
GRANT USAGE ON SCHEMA public TO idp_app_user;
SET ROLE idp;

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

CREATE INDEX idx_events_type ON public.security_event (type);
CREATE INDEX idx_events_tenant ON public.security_event (tenant_id);
CREATE INDEX idx_events_client ON public.security_event (client_id);
CREATE INDEX idx_events_user ON public.security_event (user_id);
CREATE INDEX idx_events_external_user ON public.security_event (external_user_id);
CREATE INDEX idx_events_created_at ON public.security_event (created_at);
CREATE INDEX idx_events_tenant_created_at ON public.security_event (tenant_id, created_at);
CREATE INDEX idx_events_tenant_type_created_at ON public.security_event (tenant_id, type, created_at DESC);
CREATE INDEX idx_events_tenant_client_created_at ON public.security_event (tenant_id, client_id, created_at DESC);
CREATE INDEX idx_events_tenant_user_created_at ON public.security_event (tenant_id, user_id, created_at DESC);
CREATE INDEX idx_events_tenant_external_user_created_at
    ON public.security_event (tenant_id, external_user_id, created_at DESC);
CREATE INDEX idx_events_detail ON public.security_event USING gin (detail);

CREATE TABLE public.security_event_hook_results (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    security_event_id uuid NOT NULL,
    security_event_type varchar(255) NOT NULL,
    security_event_hook varchar(255) NOT NULL,
    security_event_payload jsonb NOT NULL,
    security_event_hook_execution_payload jsonb,
    status varchar(255) NOT NULL,
    created_at timestamp DEFAULT now() NOT NULL,
    updated_at timestamp DEFAULT now() NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

CREATE INDEX idx_hook_results_tenant_created_at ON public.security_event_hook_results (tenant_id, created_at DESC);
CREATE INDEX idx_hook_results_event ON public.security_event_hook_results (security_event_id);

CREATE TABLE public.statistics_daily_users (
    tenant_id uuid NOT NULL,
    stat_date date NOT NULL,
    user_id uuid NOT NULL,
    user_name varchar(255) DEFAULT '' NOT NULL,
    last_used_at timestamp NOT NULL,
    created_at timestamp DEFAULT now() NOT NULL,
    PRIMARY KEY (tenant_id, stat_date, user_id)
) PARTITION BY RANGE (stat_date);

CREATE TABLE public.statistics_monthly_users (
    tenant_id uuid NOT NULL,
    stat_month date NOT NULL,
    user_id uuid NOT NULL,
    user_name varchar(255) DEFAULT '' NOT NULL,
    last_used_at timestamp NOT NULL,
    created_at timestamp DEFAULT now() NOT NULL,
    PRIMARY KEY (tenant_id, stat_month, user_id)
) PARTITION BY RANGE (stat_month);

CREATE TABLE public.statistics_yearly_users (
    tenant_id uuid NOT NULL,
    stat_year date NOT NULL,
    user_id uuid NOT NULL,
    user_name varchar(255) DEFAULT '' NOT NULL,
    last_used_at timestamp NOT NULL,
    created_at timestamp DEFAULT now() NOT NULL,
    PRIMARY KEY (tenant_id, stat_year, user_id)
) PARTITION BY RANGE (stat_year);

-- FORCE holds the owner to the policy too: whoever reads the parent without BYPASSRLS sees nothing or an error.
DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['security_event', 'security_event_hook_results', 'statistics_daily_users',
                                  'statistics_monthly_users', 'statistics_yearly_users'] LOOP
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', parent);
        EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', parent);
        EXECUTE format('CREATE POLICY rls_%s ON public.%I USING (tenant_id = current_setting(''app.tenant_id'')::uuid)',
                       parent, parent);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO idp_app_user', parent);
    END LOOP;
END
$$;

-- Step 1 of the guide.
CREATE SCHEMA archive;
COMMENT ON SCHEMA archive IS 'Detached partitions awaiting export to external storage';
RESET ROLE;
