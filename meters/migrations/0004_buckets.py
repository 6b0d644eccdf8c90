"""Buckets: per meter, customer, hour and group, the state of the aggregation that can be merged.

`meters_bucketvalue` holds the distinct values that `unique` counts. The log gains a mark for voided events, which
adding is free (a nullable column), and an index that finds the few events of one customer behind the watermark.
Meters and customers are never deleted, so nothing here refers to them by a foreign key that each write would pay for.

Groups and values are texts of customers, longer than an entry of an index may be. The keys hold their SHA-256 instead
(meters.rollups writes them); without groups the key is empty.
"""

from django.db import migrations

CREATE = """
CREATE TABLE meters_bucket (
    meter_id bigint NOT NULL,
    customer_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    groups text[] NOT NULL DEFAULT '{}',
    groups_key bytea NOT NULL DEFAULT '',
    events bigint NOT NULL,
    total numeric NOT NULL,
    lowest numeric,
    highest numeric,
    -- The first and the last event by (timestamp, id), for last and weighted_sum.
    first_at timestamptz,
    last_at timestamptz,
    last_id bigint,
    last_value numeric,
    -- weighted_sum only: value times seconds, from first_at to last_at.
    area numeric,
    PRIMARY KEY (meter_id, customer_id, hour, groups_key)
);
-- For the hours of all customers at once. Over expressions, so that it never stands in for the primary key where one
-- customer's are read (meters.usage says why).
CREATE INDEX meters_bucket_hours ON meters_bucket ((meter_id + 0), (hour AT TIME ZONE 'UTC'));
CREATE TABLE meters_bucketvalue (
    meter_id bigint NOT NULL,
    customer_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    groups text[] NOT NULL DEFAULT '{}',
    groups_key bytea NOT NULL DEFAULT '',
    value text COLLATE "C" NOT NULL,
    value_key bytea NOT NULL,
    PRIMARY KEY (meter_id, customer_id, hour, groups_key, value_key)
);
ALTER TABLE meters_event ADD COLUMN voided_at timestamptz;
CREATE INDEX meters_event_tail ON meters_event (customer_id, id);
"""

DROP = """
DROP INDEX meters_event_tail;
ALTER TABLE meters_event DROP COLUMN voided_at;
DROP TABLE meters_bucketvalue;
DROP TABLE meters_bucket;
"""


class Migration(migrations.Migration):
    dependencies = [("meters", "0003_corrections_and_rollups")]
    operations = [migrations.RunSQL(CREATE, DROP)]
