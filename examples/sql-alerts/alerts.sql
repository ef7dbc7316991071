-- MQTT's topics and AMQP's routing keys meet in amq.topic; Kafka clients write to the topic "sensors", which is this stream.
CREATE STREAM sensors (sensor TEXT, celsius DOUBLE, at TIMESTAMP, WATERMARK FOR at)
  FROM EXCHANGE 'amq.topic' KEY 'sensors.#';

-- The mean of ten seconds, when they are over; the queue is made if it is not there.
CREATE SINK alerts WITH (queue = 'alerts') AS
  SELECT sensor, window_end AS at, AVG(celsius) AS mean, COUNT(*) AS readings
    FROM TUMBLE(sensors, at, INTERVAL '10' SECOND)
   GROUP BY sensor, window_start, window_end
  HAVING AVG(celsius) > 90;
