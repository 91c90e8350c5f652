CREATE TYPE mood AS ENUM ('calm', 'größer', 'with ''quote''');
CREATE DOMAIN positive AS numeric(12,3) CHECK (VALUE > 0);
CREATE DOMAIN more_positive AS positive;
CREATE TYPE pair AS (a int, b text);
CREATE TABLE public.everything (
    id bigint PRIMARY KEY, happened timestamptz NOT NULL,
    b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8,
    n38 numeric(38,10), n5 numeric(5,0), n numeric, wide numeric(60,20), negative_scale numeric(5,-2),
    d date, t time, ts timestamp, u uuid, ip inet, net cidr, mac macaddr,
    j json, jb jsonb, bin bytea, txt text, vc varchar(9), ch char(7), m mood, dom more_positive {text_only_columns}
);
-- rows
INSERT INTO public.everything (id, happened) SELECT n, '2026-03-01 00:00:00+00' FROM generate_series(1, 3) AS n;
INSERT INTO public.everything VALUES
(10, '2026-02-28 23:59:59.999999+00', true, -32768, -2147483648, -9223372036854775808, 'NaN', '-Infinity',
 -9999999999999999999999999999.9999999999, -99999, '-0.00000000000000000000000012300', 'NaN', 99900,
 '0001-01-01', '24:00:00', '0001-01-01 00:00:00', '00000000-0000-0000-0000-000000000000', '::ffff:1.2.3.4',
 '10.0.0.0/8', '08:00:2b:01:02:03', '{"a" :  1, "a": 2}', '{"b": [1, {}, null]}', '\x00ff', '', '', '', 'größer', 0.001
 {text_only_values}),
(11, '2026-03-01 00:00:00.000001+00', false, 32767, 2147483647, 9223372036854775807, '1e-45', '5e-324',
 9999999999999999999999999999.9999999999, 99999, '1e100', 123456789012345678901234567890.12345678901234567890, -100,
 '9999-12-31', '00:00:00.000001', '9999-12-31 23:59:59.999999', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'fe80::1/64',
 '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', '"\u2603 日本"', '"🎉\n"', '\x', E'tab\tnewline\n\\N "q" ,;', '日本語', 'ab',
 'with ''quote''', 999999999.999 {text_only_values}),
(12, '1969-12-31 23:59:59.999999+00', NULL, 0, 0, 0, '-0', '-0', 0, -0, '0.0000', 0, 0, '1969-12-31', '12:34:56.7',
 '1969-12-31 23:59:59.5', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1:2:0:0:3::', '::/0', '00:00:00:00:00:00', 'null',
 'null', NULL, NULL, NULL, NULL, 'calm', 1 {text_only_values});
