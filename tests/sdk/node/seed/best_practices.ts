// The seed's "Best Practices": batching and retries, as written.
import DodoPayments from 'dodopayments';

const client = new DodoPayments({
  bearerToken: process.env.DODO_PAYMENTS_API_KEY!,
});

type Event = DodoPayments.EventInput;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

// Queue events and send in batches
const eventQueue: Event[] = [];

function queueEvent(event: Event) {
  eventQueue.push(event);
  if (eventQueue.length >= 100) {
    flushEvents();
  }
}

async function flushEvents() {
  if (eventQueue.length === 0) return;
  const batch = eventQueue.splice(0, 1000);
  await client.usageEvents.ingest({ events: batch });
}

// Flush periodically
const timer = setInterval(flushEvents, 5000);

async function trackWithRetry(event: Event, retries = 3) {
  for (let i = 0; i < retries; i++) {
    try {
      await client.usageEvents.ingest({ events: [event] });
      return;
    } catch (error) {
      if (i === retries - 1) throw error;
      await sleep(1000 * Math.pow(2, i)); // Exponential backoff
    }
  }
}

const eventName = 'api.call';
const event = () => ({
  event_id: `${eventName}_${Date.now()}_${crypto.randomUUID()}`,
  customer_id: 'cus_xyz',
  event_name: eventName,
  metadata: {
    endpoint: '/v1/generate',
    method: 'POST',
    model: 'gpt-4',
    user_id: 'internal_user_123',
    request_id: crypto.randomUUID(),
  },
});

for (let i = 0; i < 150; i++) queueEvent(event());
await flushEvents();
await trackWithRetry(event());
clearInterval(timer);
