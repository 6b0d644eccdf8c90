// The seed's Next.js route and React hook, as written, save that they stand in one file. Next and React themselves are
// two small stand-ins (seed.py writes them): the route gets the platform's Request, the hook a plain function.
import { NextRequest, NextResponse } from 'next/server';
import DodoPayments from 'dodopayments';
import { useCallback } from 'react';

const client = new DodoPayments({
  bearerToken: process.env.DODO_PAYMENTS_API_KEY!,
});

export async function POST(req: NextRequest) {
  const { customerId, eventName, metadata } = await req.json();

  try {
    await client.usageEvents.ingest({
      events: [{
        event_id: `${eventName}_${Date.now()}_${crypto.randomUUID()}`,
        customer_id: customerId,
        event_name: eventName,
        timestamp: new Date().toISOString(),
        metadata,
      }]
    });

    return NextResponse.json({ success: true });
  } catch (error: any) {
    return NextResponse.json(
      { error: error.message },
      { status: 500 }
    );
  }
}

export function useUsageTracking(customerId: string) {
  const trackUsage = useCallback(async (
    eventName: string,
    metadata: Record<string, string>
  ) => {
    await fetch('/api/track-usage', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ customerId, eventName, metadata }),
    });
  }, [customerId]);

  return { trackUsage };
}

// What a browser and Next do between the two: the page's fetch reaches the route above.
const realFetch = globalThis.fetch;
const answers: unknown[] = [];
globalThis.fetch = async (input, init) => {
  if (input !== '/api/track-usage') return realFetch(input, init);
  const answer = await POST(new Request('http://app.example/api/track-usage', init) as NextRequest);
  answers.push([answer.status, await answer.clone().json()]);
  return answer;
};

// Use in component
const { trackUsage } = useUsageTracking('cus_abc123');

await trackUsage('ai.tokens', {
  tokens: '2500',
  model: 'gpt-4',
});

const nobody = useUsageTracking('cus_nobody');
await nobody.trackUsage('ai.tokens', { tokens: '1' });

console.log(JSON.stringify(answers));
