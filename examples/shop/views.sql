-- Everything that happens in the shop, in order, for as long as you like: a stream that is bound to the event bus.
CREATE STREAM shop_events (event TEXT, kind TEXT, order_id TEXT, item TEXT, cents BIGINT, at TIMESTAMPTZ)
  FROM EXCHANGE 'shop' KEY '#';

-- A service that was killed may have published twice, with the same id.
CREATE VIEW once AS SELECT DISTINCT ON (event) event, kind, order_id, item, cents FROM shop_events;

-- What a page about orders asks for. No service is disturbed by it.
CREATE MATERIALIZED VIEW order_state AS
  SELECT DISTINCT ON (order_id) order_id, substr(kind, 7) AS state FROM shop_events
   WHERE kind IN ('order.placed', 'order.shipped', 'order.cancelled')
   ORDER BY order_id, _offset DESC;

-- What the owner asks for.
CREATE MATERIALIZED VIEW takings AS
  SELECT item,
         COUNT(*) FILTER (WHERE kind = 'order.shipped') AS shipped,
         COALESCE(SUM(cents) FILTER (WHERE kind = 'payment.taken'), 0) - COALESCE(SUM(cents) FILTER (WHERE kind = 'payment.returned'), 0) AS cents
    FROM once
   WHERE kind IN ('payment.taken', 'payment.returned', 'order.shipped')
   GROUP BY item;
