// From a customer to an invoice with the npm SDK. It prints what it met; the test looks at it.
import DodoPayments from 'dodopayments';

const client = new DodoPayments(); // key and base URL come from the environment
const step = process.argv[2];
const say = (told: unknown) => console.log(JSON.stringify(told));

async function refused(call: () => Promise<unknown>) {
  try {
    await call();
    return 'accepted';
  } catch (error) {
    if (!(error instanceof DodoPayments.APIError)) throw error;
    return [error.constructor.name, error.status, error.message, error.error];
  }
}

if (step === 'use') {
  const customer = await client.customers.create({ name: 'Initech', email: 'pay@initech.example' });
  const meter = await client.meters.create({
    name: 'API Requests',
    event_name: 'ts.call',
    aggregation: { type: 'count' },
    measurement_unit: 'calls',
    filter: { conjunction: 'and', clauses: [{ key: 'tier', operator: 'equals', value: 'paid' }] },
  });
  const product = await client.products.create({
    name: 'API',
    tax_category: 'saas',
    price: {
      type: 'usage_based_price',
      currency: 'USD',
      fixed_price: 0,
      discount: 0,
      purchasing_power_parity: false,
      payment_frequency_count: 1,
      payment_frequency_interval: 'Month',
      subscription_period_count: 20,
      subscription_period_interval: 'Year',
      meters: [{ meter_id: meter.id, price_per_unit: '2', free_threshold: 1000 }],
    },
  });
  const subscription = await client.subscriptions.create({
    billing: { country: 'US', city: 'Austin', state: 'TX', street: '4120 Freidrich Lane', zipcode: '78744' },
    customer: { customer_id: customer.customer_id },
    product_id: product.product_id,
    quantity: 1,
  });
  const ingested: number[] = [];
  for (let first = 0; first < 2600; first += 1000) {
    const events = Array.from({ length: Math.min(1000, 2600 - first) }, (_, n) => ({
      event_id: `ts/${first + n}`,
      customer_id: customer.customer_id,
      event_name: 'ts.call',
      timestamp: new Date().toISOString(),
      metadata: { tier: first + n < 100 ? 'free' : 'paid', weight: 0.5, last: true },
    }));
    ingested.push((await client.usageEvents.ingest({ events })).ingested_count);
    if (first === 0) ingested.push((await client.usageEvents.ingest({ events })).ingested_count);
  }
  const event = await client.usageEvents.retrieve('ts/7');
  const counted = await client.usageEvents.list({ meter_id: meter.id, page_size: 5 });
  const running = await client.subscriptions.retrieveUsageHistory(subscription.subscription_id);
  const soon = new Date(Date.now() + 60_000).toISOString();
  const moved = await client.subscriptions.update(subscription.subscription_id, { next_billing_date: soon });
  const session = await client.customers.customerPortal.create(customer.customer_id, { return_url: 'https://app.example' });
  say({
    customer, meter, product, subscription, ingested, event, running: running.items, soon, moved, session,
    counted: counted.items,
    meters: (await client.meters.list()).items.length,
    refusals: [
      await refused(() => client.customers.retrieve('cus_none')),
      await refused(() => client.usageEvents.ingest({ events: [] })),
      await refused(() => client.subscriptions.create({
        billing: { country: 'US' }, customer: { customer_id: 'cus_none' }, product_id: product.product_id, quantity: 1,
      })),
      await refused(() => client.subscriptions.update(subscription.subscription_id, { status: 'paused' })),
      await refused(() => new DodoPayments({ bearerToken: 'wrong' }).meters.list()),
    ],
    nothing: [
      await client.meters.archive(meter.id) ?? null, await client.meters.unarchive(meter.id) ?? null,
      await client.products.archive(product.product_id) ?? null, await client.products.unarchive(product.product_id) ?? null,
      await client.products.update(product.product_id, { name: 'API, renamed' }) ?? null,
    ],
  });
} else if (step === 'bill') {
  const subscription_id = process.argv[3];
  const payments = (await client.payments.list({ subscription_id })).items;
  const payment = await client.payments.retrieve(payments[0].payment_id);
  const lines = await client.payments.retrieveLineItems(payment.payment_id);
  const pdf = await client.invoices.payments.retrieve(payment.payment_id);
  const body = Buffer.from(await pdf.arrayBuffer());
  say({
    amounts: payments.map((item) => item.total_amount), payment, lines,
    pdf: [pdf.headers.get('content-type'), body.subarray(0, 5).toString()],
    history: (await client.subscriptions.retrieveUsageHistory(subscription_id)).items,
    credits: await client.subscriptions.retrieveCreditUsage(subscription_id),
  });
} else if (step === 'page') {
  // How the SDK's own pager walks: without a page number it skips the second page (an error of the SDK).
  const seen = async (query: DodoPayments.CustomerListParams) => {
    const ids: string[] = [];
    for await (const customer of client.customers.list({ page_size: 2, email: 'many@pages.example', ...query })) {
      ids.push(customer.customer_id);
    }
    return ids;
  };
  say({ from_zero: await seen({ page_number: 0 }), without: await seen({}) });
}
